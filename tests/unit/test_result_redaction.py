"""Secrets in results."""

from __future__ import annotations

import pytest

from prokos.tde import FatalFailure
from prokos.tde.result_redaction import clear_result

SHOWN = [("t0p-s3cret", "secret token"), ("t0p-s3cret-and-longer", "secret other"), ("short", "secret small")]


def test_texts_and_keys_are_cleared_at_every_depth() -> None:
    value = {"a": ["x t0p-s3cret y", {"t0p-s3cret": 1}], "b": "t0p-s3cret-and-longer", "c": 5, "d": None, "e": True}
    assert clear_result(value, SHOWN) == {
        "a": ["x <secret token> y", {"<secret token>": 1}],
        "b": "<secret other>",
        "c": 5,
        "d": None,
        "e": True,
    }


def test_a_short_secret_is_left_since_it_occurs_by_chance() -> None:
    assert clear_result({"a": "a short text"}, SHOWN) == {"a": "a short text"}


def test_a_nest_of_brackets_is_a_failure_and_no_crash() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(FatalFailure, match="too deeply"):
        clear_result(value, SHOWN)
