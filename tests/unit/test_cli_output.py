"""How lists are printed."""

from __future__ import annotations

import pytest

from prokos.cli.output import OutputFormat, print_rows


def test_a_row_that_goes_to_another_program_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    detail = "the disk is full " * 40
    print_rows([{"check": "disk", "detail": detail}], {"check": "CHECK", "detail": "DETAIL"}, OutputFormat.TABLE, "-")
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["CHECK", "DETAIL"]
    assert row.split(maxsplit=1) == ["disk", detail]
