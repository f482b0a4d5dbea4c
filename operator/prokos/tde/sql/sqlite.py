"""SQLite, which works within the worker's process."""

from __future__ import annotations

import contextlib
import sqlite3
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote

from sqlalchemy.exc import DBAPIError

from prokos.tde.sql.database import Database

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

    from prokos.resources import sql_text

BUSY_SECONDS: Final = 10.0
"""How long SQLite waits for another writer, unless `lockTimeout` says otherwise."""

LONGEST_VALUE: Final = 16_000_000
"""Bytes of a value or a row, if `maxBytes` is not more: SQLite doubles a text to a gigabyte before it looks up."""

_STEPS: Final = 10_000
"""Steps of SQLite's virtual machine between two looks at the clock; under a millisecond."""


class Sqlite(Database):
    """A file, in WAL mode, so that readers work beside a writer. Its transactions are serializable."""

    name: ClassVar[sql_text.Database] = "sqlite"

    def connect_url(self) -> URL:
        """The URL; of a read-only executor one that cannot write."""
        if not self.settings.read_only:
            return self.url
        database = self.url.database or ""
        if not database.startswith("file:"):
            database = f"file:{quote(database)}"
        return self.url.set(database=database).update_query_dict({"mode": "ro", "uri": "true"})

    def engine_arguments(self) -> dict[str, Any]:
        """None: whatever isolation is asked for, SQLite's is as strict."""
        return {}

    def connect_arguments(self) -> dict[str, Any]:
        """Wait for other writers."""
        wait = self.settings.lock_timeout
        return {"timeout": wait.total_seconds() if wait else BUSY_SECONDS}

    def connected(self, driver: Any) -> None:
        """Leave transactions to `begin`: Python's module would begin none for a query."""
        driver.isolation_level = None
        driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(LONGEST_VALUE, self.settings.max_bytes))
        if self.settings.read_only:
            driver.execute("PRAGMA query_only=ON")

    def is_alive(self, connection: Connection) -> bool:
        """Always: it is a file."""
        del connection
        return True

    def prepare(self, engine: Engine) -> None:
        """Put the file into WAL mode, in which it stays."""
        if not self.settings.read_only:
            # In use right now, or on a read-only medium: another start will succeed, and nothing depends on it.
            with contextlib.suppress(DBAPIError), engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")

    def begin(self, connection: Connection, *, limit: float, writes: bool) -> None:
        """Begin; a writer takes its turn at once, since one that has read already could not wait for it."""
        del limit
        if self.settings.statement_timeout is not None:
            end = monotonic() + self.settings.statement_timeout.total_seconds()
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(lambda: monotonic() > end, _STEPS)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    def in_transaction(self, driver: Any) -> bool:
        """Whether SQLite has not ended the transaction."""
        return bool(driver.in_transaction)

    def cancel(self, driver: Any) -> None:
        """Interrupt the statement."""
        driver.interrupt()
