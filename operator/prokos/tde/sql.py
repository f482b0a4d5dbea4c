"""TDE type `sql`: one statement per attempt, in a transaction of its own, on SQLite or PostgreSQL.

Values of the input only ever travel as bound parameters. Rows come back as `rows` and `rowCount`, a statement
without rows as `rowCount`; `sql_values` says what becomes of the types. More rows than `maxRows` undo the
transaction and are an incident. A lost connection, a deadlock, a lock or serialization failure is tried again;
other errors are incidents, unless `errors` makes them business errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, StatementError

from prokos.tde.contract import BusinessError, Executor, FatalFailure, RetryableFailure
from prokos.tde.sql_errors import business_code, describe, is_retryable
from prokos.tde.sql_threads import Cancellation, in_thread
from prokos.tde.sql_values import hide_values, to_json, to_parameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Connection, Engine, TextClause

    from prokos.resources.sql_settings import SqlSettings
    from prokos.tde.contract import Context, Environment

BUSY_SECONDS = 10.0
"""How long SQLite waits for another writer."""
CONNECT_SECONDS = 10
"""How long a connection to PostgreSQL may take."""
UNHEARD_SECONDS = 30
"""How long PostgreSQL may stay silent before TCP asks whether it is there, and how long that may take."""
SETUP_LOCK = 0x70726F6B6F73
"""Key of the PostgreSQL advisory lock under which workers set up: the letters "prokos"."""

_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_READS = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(select|with|values)\b", re.IGNORECASE | re.DOTALL)
_NOT_ONLY_READS = re.compile(r"\b(insert|update|delete|merge|into|for)\b", re.IGNORECASE)

log = structlog.get_logger(__name__)


class SqlExecutor(Executor[dict[str, Any], dict[str, Any]]):
    """Runs one statement."""

    settings: SqlSettings

    def __init__(self, settings: SqlSettings, environment: Environment) -> None:
        super().__init__(settings, environment)
        secret = settings.url_secret
        self._url = engine_url(environment.secrets[secret] if secret else settings.url or "", environment.workdir)
        self._statement: TextClause = text(settings.statement)
        self._parameters = tuple(self._statement.compile().params)
        self._streams = is_read(settings.statement)
        self._threads = ThreadPoolExecutor(environment.concurrency, "sql")
        self._engine = self._create_engine()
        self._set_up = False
        self._setting_up = asyncio.Lock()

    async def start(self) -> None:
        """Set up. A database that is down is set up by the first task instead.

        Raises:
            FatalFailure: The database refuses a statement of `setup`.
        """
        try:
            await self._ensure_set_up()
        except RetryableFailure as failure:
            log.warning("database is not ready; the next task tries again", reason=str(failure))

    async def close(self) -> None:
        """Close the connections and end the threads."""
        await in_thread(self._threads, lambda _: self._engine.dispose())
        self._threads.shutdown(wait=False)

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        """Run the statement once."""
        if missing := [name for name in self._parameters if name not in data]:
            raise FatalFailure(f"spec.sql.statement needs {', '.join(missing)}, which the input does not have")
        parameters = {name: to_parameter(data[name]) for name in self._parameters}
        await self._ensure_set_up()
        try:
            return await in_thread(self._threads, partial(self._run, parameters))
        except (StatementError, OSError, TypeError, ValueError, OverflowError) as error:
            self._fail(getattr(error, "orig", None) or error, parameters)

    def _run(self, parameters: Mapping[str, Any], cancellation: Cancellation) -> dict[str, Any]:
        limit = self.settings.max_rows
        with self._transaction(cancellation) as connection:
            result = connection.execute(
                self._statement, parameters, execution_options={"stream_results": self._streams}
            )
            if not result.returns_rows:
                return {"rowCount": max(result.rowcount, 0)}
            columns, rows = list(result.keys()), result.fetchmany(limit + 1)
            result.close()
            if len(rows) > limit:
                raise FatalFailure(f"the statement returns more rows than spec.sql.maxRows ({limit}); it was undone")
            if twice := [name for name, count in Counter(columns).items() if count > 1]:
                raise FatalFailure(f"the statement returns several columns named {twice[0]!r}; name them apart with AS")
            return {
                "rows": [dict(zip(columns, map(to_json, row), strict=True)) for row in rows],
                "rowCount": len(rows),
            }

    @contextlib.contextmanager
    def _transaction(self, cancellation: Cancellation) -> Iterator[Connection]:
        with self._engine.connect() as connection, cancellation.reaching(connection), connection.begin():
            yield connection

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def _create_engine(self) -> Engine:
        if self._is_sqlite:
            arguments: dict[str, Any] = {"timeout": BUSY_SECONDS}
        else:
            arguments = {
                "connect_timeout": CONNECT_SECONDS,
                "tcp_user_timeout": UNHEARD_SECONDS * 1000,
                "keepalives_idle": UNHEARD_SECONDS,
                "application_name": f"prokos-{self.environment.name}",
                "prepare_threshold": None,  # prepared statements break behind pooling proxies
            }
        return create_engine(
            self._url,
            connect_args={key: value for key, value in arguments.items() if key not in self._url.query},
            pool_size=self.environment.concurrency,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
        )

    async def _ensure_set_up(self) -> None:
        async with self._setting_up:
            if self._set_up:
                return
            try:
                await in_thread(self._threads, self._run_setup)
            except (DBAPIError, OSError) as error:
                self._fail(getattr(error, "orig", None) or error, {}, "spec.sql.setup: ")
            self._set_up = True

    def _run_setup(self, cancellation: Cancellation) -> None:
        if self._is_sqlite:
            _enable_wal(self._engine)
        if not self.settings.setup:
            return
        with self._transaction(cancellation) as connection:
            # Even CREATE TABLE IF NOT EXISTS fails when two sessions do it at once, so they take turns.
            if self._is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SETUP_LOCK})
            for statement in self.settings.setup:
                # Without parameters a driver takes the text as it is, % and : included.
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    def _fail(self, error: BaseException, parameters: Mapping[str, Any], where: str = "") -> NoReturn:
        message = where + self._redact(hide_values(describe(error), parameters))
        if code := business_code(error, self.settings.errors):
            raise BusinessError(code, message) from error
        raise (RetryableFailure if is_retryable(error) else FatalFailure)(message) from error

    def _redact(self, message: str) -> str:
        if self._url.password:
            message = message.replace(self._url.password, "<password>")
        return self.environment.secrets.redact(message)


def _enable_wal(engine: Engine) -> None:
    """Let SQLite's readers work beside a writer. The mode stays in the file, so one success is enough for ever."""
    with contextlib.suppress(DBAPIError), engine.connect() as connection:  # in use right now, or on a read-only medium
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")


def engine_url(value: str, workdir: Path) -> URL:
    """Read a database URL, choose the driver and resolve the path of a SQLite file.

    Raises:
        ValueError: It is no URL, or of no database this type knows. The message never holds the URL.
    """
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise ValueError("the database URL of spec.sql is not a URL") from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise ValueError(f"the database URL of spec.sql starts with {url.drivername}://; use sqlite or postgresql")
    url = url.set(drivername=driver)
    if driver == _DRIVERS["sqlite"]:
        if not url.database or url.database == ":memory:":
            raise ValueError("the database URL of spec.sql names no file; a database in memory ends with its worker")
        if not url.database.startswith("file:"):
            url = url.set(database=str(workdir / url.database))
    return url


def is_read(statement: str) -> bool:
    """Whether a statement only reads, so that its rows can be fetched one by one.

    Only a guess from its words: a wrong no costs memory, and a yes must be right, since PostgreSQL takes no other
    statement for a cursor. So any word of a writing statement makes it a no.
    """
    return bool(_READS.match(statement)) and not _NOT_ONLY_READS.search(statement)
