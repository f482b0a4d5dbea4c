"""One statement of a task: its parameters, its execution, what it must have done."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, text

from prokos.resources.sql_text import SqlText
from prokos.tde.contract import BusinessError, FatalFailure
from prokos.tde.sql.parameters import bind, elements
from prokos.tde.sql.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, CursorResult, TextClause

    from prokos.resources.sql_settings import SqlExpect, SqlSettings, SqlStatement
    from prokos.tde.sql.database import Database
    from prokos.tde.sql.rows import Budget


@dataclass(frozen=True)
class Bound:
    """A statement with the values of one task."""

    statement: Statement
    sets: list[dict[str, Any]]
    """Of a batch as many as it has elements, else one."""


class Statement:
    """A statement of an executor, read once in a worker's life."""

    def __init__(self, declared: SqlStatement, settings: SqlSettings, database: Database) -> None:
        """Read it.

        Raises:
            ValueError: It is not one statement that a task may consist of.
        """
        self.name = declared.name
        self.where = f"spec.sql.statements {self.name!r}" if settings.statement is None else "spec.sql.statement"
        self.batch = declared.batch
        self.expect = declared.expect
        self.text = SqlText(declared.statement, database.name)
        self._database = database
        self._types = settings.types
        try:
            self.text.check()
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from None

    def bind(self, data: Mapping[str, Any]) -> Bound:
        """Take the parameters from a task's input.

        Raises:
            FatalFailure: Something is missing, or not of its type.
        """
        sets = [data] if self.batch is None else elements(self.batch, data, self.where)
        return Bound(self, [bind(self.text, one, self._types, self.where) for one in sets])

    def run(self, connection: Connection, sets: list[dict[str, Any]], budget: Budget) -> dict[str, Any]:
        """Execute it, and check what it did.

        Raises:
            BusinessError: It did not what is expected, and `expect.code` names an error.
            FatalFailure: It did not what is expected, or the result is too large.
        """
        if self.batch is None:
            output = self._one(connection, sets[0], budget)
            self._check(output["rowCount"], "")
            return output
        if self.expect is None and not self.text.lists and sets:
            return {"rowCount": _count(connection.execute(self._clause(), sets))}
        total = 0
        for index, values in enumerate(sets):
            with self._result(connection, values) as result:
                changed = sum(1 for _ in result) if result.returns_rows else _count(result)
            self._check(changed, f" for element {index} of {self.batch}")
            total += changed
        return {"rowCount": total}

    def _one(self, connection: Connection, values: dict[str, Any], budget: Budget) -> dict[str, Any]:
        with self._result(connection, values) as result:
            return read_rows(result, budget, self.where) if result.returns_rows else {"rowCount": _count(result)}

    @contextlib.contextmanager
    def _result(self, connection: Connection, values: dict[str, Any]) -> Iterator[CursorResult[Any]]:
        """Execute with one set of values; rows that nobody read are given up."""
        empty = frozenset(name for name in self.text.lists if not values[name])
        options = {"stream_results": self._database.streams(reads=self.text.reads)}
        result = connection.execute(self._clause(empty), values, execution_options=options)
        try:
            yield result
        except FatalFailure:
            self._database.give_up(connection, result)
            raise
        finally:
            result.close()

    def _clause(self, empty: frozenset[str] = frozenset()) -> TextClause:
        return _clause(self.text, empty)

    def _check(self, count: int, of_what: str) -> None:
        if self.expect is None or _as_expected(self.expect, count):
            return
        wanted = f"{self.expect.rows}" if self.expect.rows is not None else f"at least {self.expect.at_least}"
        message = f"{self.where}: {count} rows{of_what}, {wanted} expected; everything was undone"
        if self.expect.code is None:
            raise FatalFailure(message)
        raise BusinessError(self.expect.code, message, {"sqlError": {"statement": self.name, "rowCount": count}})


@lru_cache(maxsize=256)
def _clause(statement: SqlText, empty: frozenset[str]) -> TextClause:
    """The statement for SQLAlchemy; lists are as many parameters as they have elements."""
    clause = text(statement.template(empty))
    names = clause.compile().params
    return clause.bindparams(*(bindparam(name, expanding=True) for name in statement.lists if name in names))


def _as_expected(expect: SqlExpect, count: int) -> bool:
    return count == expect.rows if expect.rows is not None else count >= (expect.at_least or 0)


def _count(result: CursorResult[Any]) -> int:
    return max(result.rowcount, 0)
