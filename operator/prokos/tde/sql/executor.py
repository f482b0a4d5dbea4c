"""TDE type `sql`: statements in one transaction, on PostgreSQL, MariaDB, MySQL or SQLite.

Values of the input only ever travel as bound parameters. Rows come back as `rows` and `rowCount`, a statement without
rows as `rowCount`, several statements under `results`; `values` says what becomes of the types. What is too long or
not as expected undoes the transaction. A lost connection, a deadlock, a lock or serialization failure is tried again;
other errors are incidents, unless `errors` makes them business errors.
"""

from __future__ import annotations

import asyncio
import ctypes
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NoReturn

import structlog

from prokos.tde.contract import BusinessError, Executor, FatalFailure, RetryableFailure
from prokos.tde.sql.errors import (
    LONGEST_MESSAGE,
    business_rule,
    describe,
    details,
    hide_password,
    hide_values,
    is_retryable,
)
from prokos.tde.sql.once import Once, fingerprint
from prokos.tde.sql.rows import Budget
from prokos.tde.sql.statement import Bound, Statement
from prokos.tde.sql.threads import CANCEL_SECONDS, Cancellation, in_thread
from prokos.tde.sql.tls import Tls
from prokos.tde.sql.url import engine_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import URL, Connection

    from prokos.resources.sql_settings import SqlSettings
    from prokos.tde.contract import Context, Environment
    from prokos.tde.sql.database import Database

FORGET_SECONDS: Final = 3600
"""How often a worker deletes keys of exactly-once writes that are older than their retention."""

log = structlog.get_logger(__name__)


class SqlExecutor(Executor[dict[str, Any], dict[str, Any]]):
    """Runs statements."""

    settings: SqlSettings

    def __init__(self, settings: SqlSettings, environment: Environment) -> None:
        super().__init__(settings, environment)
        secret = settings.url_secret
        url = engine_url(environment.secrets[secret] if secret else settings.url or "", environment.workdir)
        self._password = url.password
        self._tls = Tls(url, settings.tls, environment.secrets)
        self._database = _database_class(url)(url, settings, environment, self._tls)
        self._statements = [Statement(one, settings, self._database) for one in settings.all_statements]
        self._writes = not all(one.text.reads for one in self._statements) or settings.exactly_once
        self._once = (
            Once(settings.exactly_once_table, environment.name, settings.exactly_once_retention, self._database.name)
            if settings.exactly_once
            else None
        )
        self._threads = ThreadPoolExecutor(self._database.pool_size, "sql")
        self._engine = self._database.create_engine()
        self._set_up = False
        self._setting_up = asyncio.Lock()
        self._forgotten = monotonic()

    async def start(self) -> None:
        """Set up. A database that is down is set up by the first task instead.

        Raises:
            FatalFailure: The database refuses a statement of `setup`.
        """
        try:
            await self._ensure_set_up()
        except RetryableFailure as failure:
            log.warning("database is not ready; the next task tries again", reason=str(failure))
        _return_memory()

    async def close(self) -> None:
        """Close the connections and end the threads."""
        await in_thread(self._threads, self._database, lambda _: self._engine.dispose())
        self._threads.shutdown(wait=False)
        self._tls.close()

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        """Run the statements once, in one transaction."""
        bound = [one.bind(data) for one in self._statements]
        await self._ensure_set_up()
        limit = context.timeout.total_seconds() + CANCEL_SECONDS
        try:
            work = partial(self._run, bound, context.idempotency_key, limit)
            output = await in_thread(self._threads, self._database, work)
        except _OUTCOMES:
            raise
        except Exception as error:  # noqa: BLE001 - of a database, its driver or a value
            self._fail(error, bound)
        await self._forget_old()
        return output

    def _run(self, bound: Sequence[Bound], key: str, limit: float, cancellation: Cancellation) -> dict[str, Any]:
        with self._transaction(cancellation, limit, writes=self._writes) as connection:
            print_of_it = fingerprint([one.sets for one in bound]) if self._once else ""
            if self._once and (stored := self._once.claim(connection, key, print_of_it)) is not None:
                log.info("this task was executed before; its result is the stored one", key=key)
                return stored
            output = self._outputs(connection, bound, cancellation)
            if self._once:
                self._once.store(connection, key, output)
            return output

    def _outputs(self, connection: Connection, bound: Sequence[Bound], cancellation: Cancellation) -> dict[str, Any]:
        budget = Budget(self.settings)
        results = {}
        for one in bound:
            results[one.statement.name] = one.statement.run(connection, one.sets, budget)
            cancellation.check()
        if (self._once or len(results) > 1) and not self._database.in_transaction(
            connection.connection.driver_connection
        ):
            raise FatalFailure(
                "a statement of spec.sql ended the transaction, as data definition does on MariaDB and MySQL; what was "
                "done until then stays done. Run such a statement in setup, or alone and without exactlyOnce"
            )
        return {"results": results} if self.settings.statements else results[bound[0].statement.name]

    @contextmanager
    def _transaction(self, cancellation: Cancellation, limit: float, *, writes: bool) -> Iterator[Connection]:
        while True:
            cancellation.check()
            with self._engine.connect() as connection, cancellation.reaching(connection):
                if not self._database.is_alive(connection):
                    connection.invalidate()  # the next one of the pool, or a new one, which works or says why not
                    continue
                with connection.begin():
                    self._database.begin(connection, limit=limit, writes=writes)
                    yield connection
                return

    async def _ensure_set_up(self) -> None:
        async with self._setting_up:
            if self._set_up:
                return
            try:
                await in_thread(self._threads, self._database, self._run_setup)
            except _OUTCOMES:
                raise
            except Exception as error:  # noqa: BLE001 - of a database or its driver
                self._fail(error, (), "spec.sql.setup: ")
            self._set_up = True

    def _run_setup(self, cancellation: Cancellation) -> None:
        self._database.prepare(self._engine)
        if not self.settings.setup and not self._once:
            return
        with (
            self._transaction(cancellation, SETUP_SECONDS, writes=True) as connection,
            self._database.alone(connection),
        ):
            for statement in self.settings.setup:
                # Without parameters a driver takes the text as it is, % and : included.
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
            if self._once:
                self._once.create(connection)
                self._once.forget(connection)

    async def _forget_old(self) -> None:
        """Delete old keys from time to time; the task has its result, whatever becomes of this."""
        if self._once is None or monotonic() - self._forgotten < FORGET_SECONDS:
            return
        self._forgotten = monotonic()
        try:
            await in_thread(self._threads, self._database, self._run_forget)
        except Exception as error:  # noqa: BLE001 - of a database or its driver
            log.warning("old keys stay for now", reason=self._redact(describe(_original(error))))

    def _run_forget(self, cancellation: Cancellation) -> None:
        with self._transaction(cancellation, SETUP_SECONDS, writes=True) as connection:
            if self._once and (count := self._once.forget(connection)):
                log.info("deleted old keys", count=count)

    def _fail(self, failure: Exception, bound: Sequence[Bound], where: str = "") -> NoReturn:
        error = _original(failure)
        values = [item for one in bound for values in one.sets for item in values.items()]
        message = where + self._redact(hide_values(describe(error), values))[:LONGEST_MESSAGE]
        if rule := business_rule(error, self.settings.errors):
            raise BusinessError(rule.code, rule.message or message, {"sqlError": details(error)}) from error
        retryable = is_retryable(error, read_only=self.settings.read_only)
        raise (RetryableFailure if retryable else FatalFailure)(message) from error

    def _redact(self, message: str) -> str:
        return self.environment.secrets.redact(hide_password(message, self._password))


_OUTCOMES: Final = (BusinessError, FatalFailure, RetryableFailure)

SETUP_SECONDS: Final = 600.0
"""How long a statement of `setup` may take where the server has no limit: one may build an index."""


def _original(error: Exception) -> BaseException:
    """The driver's exception behind SQLAlchemy's."""
    return getattr(error, "orig", None) or error


def _database_class(url: URL) -> type[Database]:
    """Import what one database needs, and no more."""
    match url.get_backend_name():
        case "postgresql":
            from prokos.tde.sql.postgresql import PostgreSql

            return PostgreSql
        case "mysql":
            from prokos.tde.sql.mysql import MySql

            return MySql
        case _:
            from prokos.tde.sql.sqlite import Sqlite

            return Sqlite


def _return_memory() -> None:
    """Give back to the system what importing drivers and dialects took and freed; about 3 MB."""
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
