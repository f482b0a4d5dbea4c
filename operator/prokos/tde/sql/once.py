"""Exactly-once writes: a task's key and its result are kept in the transaction that does the work.

What comes with the key of a task that was committed gets the stored result, and nothing is executed. Two that come at
once with one key take turns, since the second waits for the first one's row.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, DateTime, Index, MetaData, String, Table, Text, delete, select, update

from prokos.tde.contract import FatalFailure, RetryableFailure

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Connection
    from sqlalchemy.sql.dml import Insert

    from prokos.resources.sql_text import Database

LONGEST_RESULT = 2**24
"""Bytes; makes MariaDB choose LONGTEXT."""


class Once:
    """The table of keys and results, as one executor uses it."""

    def __init__(self, table: str, executor: str, retention: timedelta, database: Database) -> None:
        schema, _, name = table.rpartition(".")
        self._name = table
        self._executor = executor
        self._retention = retention
        self._database = database
        self._table = Table(
            name,
            MetaData(schema=schema or None),
            Column("executor", String(63), primary_key=True),
            Column("idempotency_key", String(64), primary_key=True),
            Column("parameters", String(64), nullable=False),
            Column("result", Text(LONGEST_RESULT).with_variant(Text(), "postgresql", "sqlite")),
            Column("executed_at", DateTime(timezone=True), nullable=False),
            Index(f"{name}_executed_at", "executor", "executed_at"),
            mysql_engine="InnoDB",  # which has transactions
            mysql_charset="utf8mb4",
        )

    def create(self, connection: Connection) -> None:
        """Create the table, if it is not there."""
        self._table.create(connection, checkfirst=True)

    def claim(self, connection: Connection, key: str, parameters: str) -> dict[str, Any] | None:
        """Take a task's key. Returns the result if the task was executed already.

        Raises:
            FatalFailure: The key was used with other parameters: this is another task.
        """
        values = {
            "executor": self._executor,
            "idempotency_key": key,
            "parameters": parameters,
            "executed_at": datetime.now(UTC),
        }
        claiming = self._insert().values(**values).execution_options(preserve_rowcount=True)
        if connection.execute(claiming).rowcount == 1:
            return None
        kept = select(self._table.c.parameters, self._table.c.result).where(*self._is(key))
        found = connection.execute(kept.with_for_update(read=True)).one_or_none()
        if found is None:
            raise RetryableFailure(f"the key {key} was removed from {self._name} in this moment")
        if found.parameters != parameters:
            raise FatalFailure(
                f"the key {key} is in {self._name} with other parameters: another engine writes into this database, "
                "its data was reset, or the task's variables changed between two attempts. Nothing was executed; give "
                "each engine an exactlyOnceTable of its own, or delete the row to have it executed"
            )
        if found.result is None:
            raise FatalFailure(f"a statement committed by itself when {key} was executed; look at what it did")
        stored: dict[str, Any] = json.loads(found.result)
        return stored

    def store(self, connection: Connection, key: str, result: dict[str, Any]) -> None:
        """Keep a result with its key."""
        text = json.dumps(result, ensure_ascii=False)
        connection.execute(update(self._table).where(*self._is(key)).values(result=text))

    def forget(self, connection: Connection) -> int:
        """Delete what is older than the retention; returns how much that was."""
        oldest = datetime.now(UTC) - self._retention
        return connection.execute(
            delete(self._table).where(self._table.c.executor == self._executor, self._table.c.executed_at < oldest)
        ).rowcount

    def _is(self, key: str) -> tuple[Any, Any]:
        return self._table.c.executor == self._executor, self._table.c.idempotency_key == key

    def _insert(self) -> Insert:
        """An insertion that does nothing if the key is there; it waits for whoever is about to insert it."""
        if self._database == "postgresql":
            from sqlalchemy.dialects import postgresql

            return postgresql.insert(self._table).on_conflict_do_nothing()
        if self._database == "sqlite":
            from sqlalchemy.dialects import sqlite

            return sqlite.insert(self._table).on_conflict_do_nothing()
        return self._table.insert().prefix_with("IGNORE")


def fingerprint(sets: list[list[dict[str, Any]]]) -> str:
    """A hash of the parameters of all statements, which tells two tasks apart that have one key."""
    text = json.dumps(sets, default=str, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
