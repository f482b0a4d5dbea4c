"""The fault tests have time: what they wait for has limits of its own, which say what was missing."""

from __future__ import annotations

from pathlib import Path

import pytest

LIMIT = 1800
"""Seconds after which a test is given up without a word: more than all its own limits on a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(LIMIT))
