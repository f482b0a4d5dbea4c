"""What `prokos doctor` says of an engine from its version."""

from __future__ import annotations

import pytest

from prokos.cli.doctor import FORGETTING, describe_engine


@pytest.mark.parametrize(
    ("version", "embedded", "forgets"),
    [("8.6.0", False, True), ("8.6.0", True, False), ("8.7.0", False, False), ("8.10.0-alpha1", False, False)],
)
def test_an_old_engine_that_we_do_not_start_may_forget(version: str, embedded: bool, forgets: bool) -> None:
    assert (FORGETTING in describe_engine(version, embedded=embedded)) == forgets


def test_a_version_that_is_not_tested_is_said_to_be_so() -> None:
    assert describe_engine("8.6.0", embedded=True).startswith("version 8.6.0 (tested); lacks ad-hoc sub-processes")
    assert "(not tested; tested are 8.6.0, 8.8.21)" in describe_engine("8.6.1", embedded=True)
