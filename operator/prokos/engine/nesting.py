"""How deep variables may be nested."""

from __future__ import annotations

import sys

DEEPEST_JSON = 1_000
"""Levels of nesting that variables can have: with more, 8.6.0 does not hand out the job (measured)."""


def allow_deep_variables() -> None:
    """Let this process parse and write whatever the engine hands out; Python alone stops shortly before.

    A job whose variables cannot be parsed could not even be reported as failed, and would come back for ever.
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 3 * DEEPEST_JSON))
