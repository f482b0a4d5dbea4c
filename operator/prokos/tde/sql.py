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
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from prokos.tde.cancellation import finish
from prokos.tde.contract import BusinessError, Executor, FatalFailure, RetryableFailure
from prokos.tde.sql_errors import business_code, describe, is_retryable
from prokos.tde.sql_values import hide_values, to_json, to_parameter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sqlalchemy import TextClause

    from prokos.resources.executor import SqlSettings
    from prokos.tde.contract import Context, Environment

BUSY_SECONDS = 10.0
"""How long SQLite waits for another writer."""
CONNECT_SECONDS = 10
"""How long a connection to PostgreSQL may take."""
SETUP_LOCK = 0x70726F6B6F73
"""Key of the PostgreSQL advisory lock under which workers set up: the letters "prokos"."""

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
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
        self._engine: AsyncEngine | None = None
        self._set_up = False
        self._setting_up = asyncio.Lock()

    async def start(self) -> None:
        """Make the connection pool and set up. A database that is down is set up by the first task instead.

        Raises:
            FatalFailure: The database refuses a statement of `setup`.
        """
        self._engine = self._create_engine()
        try:
            await self._ensure_set_up(self._engine)
        except RetryableFailure as failure:
            log.warning("database is not ready; the next task tries again", reason=str(failure))

    async def close(self) -> None:
        """Close the pool."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        """Run the statement once."""
        if self._engine is None:
            raise RuntimeError("execute before start")
        if missing := [name for name in self._parameters if name not in data]:
            raise FatalFailure(f"spec.sql.statement needs {', '.join(missing)}, which the input does not have")
        parameters = {name: to_parameter(data[name]) for name in self._parameters}
        await self._ensure_set_up(self._engine)
        try:
            async with self._engine.begin() as connection:
                return await self._run(connection, parameters)
        except (DBAPIError, OSError) as error:
            self._fail(getattr(error, "orig", None) or error, parameters)
        except PoolTimeoutError as error:
            raise RetryableFailure("no connection to the database became free") from error
        except (StatementError, TypeError, ValueError, OverflowError) as error:
            self._fail(getattr(error, "orig", None) or error, parameters)

    async def _run(self, connection: AsyncConnection, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if not self._is_sqlite:
            return await self._fetch(connection, parameters)
        # SQLite works in a thread, which no cancellation reaches: it would run on and hold its locks.
        driver: Any = (await connection.get_raw_connection()).driver_connection
        work = asyncio.ensure_future(self._fetch(connection, parameters))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await finish(_interrupt(driver, work))
            raise

    async def _fetch(self, connection: AsyncConnection, parameters: Mapping[str, Any]) -> dict[str, Any]:
        limit = self.settings.max_rows
        if self._streams:
            streamed = await connection.stream(self._statement, parameters)
            columns, rows = list(streamed.keys()), await streamed.fetchmany(limit + 1)
            await streamed.close()
        else:
            result = await connection.execute(self._statement, parameters)
            if not result.returns_rows:
                return {"rowCount": max(result.rowcount, 0)}
            columns, rows = list(result.keys()), result.fetchmany(limit + 1)
        if len(rows) > limit:
            raise FatalFailure(f"the statement returns more rows than spec.sql.maxRows ({limit}); it was undone")
        if twice := [name for name, count in Counter(columns).items() if count > 1]:
            raise FatalFailure(f"the statement returns several columns named {twice[0]!r}; name them apart with AS")
        return {
            "rows": [dict(zip(columns, map(to_json, row), strict=True)) for row in rows],
            "rowCount": len(rows),
        }

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def _create_engine(self) -> AsyncEngine:
        if self._is_sqlite:
            arguments: dict[str, Any] = {"timeout": BUSY_SECONDS}
        else:
            arguments = {
                "connect_timeout": CONNECT_SECONDS,
                "application_name": f"prokos-{self.environment.name}",
                "prepare_threshold": None,  # prepared statements break behind pooling proxies
            }
        return create_async_engine(
            self._url,
            connect_args={key: value for key, value in arguments.items() if key not in self._url.query},
            pool_size=self.environment.concurrency,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
        )

    async def _ensure_set_up(self, engine: AsyncEngine) -> None:
        if self._set_up:
            return
        async with self._setting_up:
            if self._set_up:
                return
            try:
                if self._is_sqlite:
                    await _enable_wal(engine)
                if self.settings.setup:
                    async with engine.begin() as connection:
                        await self._run_setup(connection)
            except (DBAPIError, OSError) as error:
                self._fail(getattr(error, "orig", None) or error, {}, "spec.sql.setup: ")
            self._set_up = True

    async def _run_setup(self, connection: AsyncConnection) -> None:
        # Even CREATE TABLE IF NOT EXISTS fails when two sessions do it at once, so they take turns.
        if self._is_sqlite:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SETUP_LOCK})
        for statement in self.settings.setup:
            # Without parameters a driver takes the text as it is, % and : included.
            await connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    def _fail(self, error: BaseException, parameters: Mapping[str, Any], where: str = "") -> NoReturn:
        message = where + self._redact(hide_values(describe(error), parameters))
        if code := business_code(error, self.settings.errors):
            raise BusinessError(code, message) from error
        raise (RetryableFailure if is_retryable(error) else FatalFailure)(message) from error

    def _redact(self, message: str) -> str:
        if self._url.password:
            message = message.replace(self._url.password, "<password>")
        return self.environment.secrets.redact(message)


async def _interrupt(driver: Any, work: asyncio.Future[Any]) -> None:
    while not work.done():  # an interruption before the statement has begun is lost
        await driver.interrupt()
        await asyncio.wait([work], timeout=0.05)
    work.exception()


async def _enable_wal(engine: AsyncEngine) -> None:
    """Let SQLite's readers work beside a writer. The mode stays in the file, so one success is enough for ever."""
    with contextlib.suppress(DBAPIError):  # in use right now, or on a read-only medium
        async with engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA journal_mode=WAL")


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
