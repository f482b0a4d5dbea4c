"""What differs between the databases, behind one class each."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import create_engine, event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection, CursorResult, Engine

    from prokos.resources import sql_text
    from prokos.resources.sql_settings import SqlSettings
    from prokos.tde.contract import Environment
    from prokos.tde.sql.tls import Tls

UNHEARD_SECONDS: Final = 30
"""How long a server may stay silent before TCP asks whether it is there, and how long that may take."""

_LEVELS: Final = {
    "readCommitted": "READ COMMITTED",
    "repeatableRead": "REPEATABLE READ",
    "serializable": "SERIALIZABLE",
}


class Database(ABC):
    """One database as a worker uses it: how to connect, to begin a transaction, to end what hangs."""

    name: ClassVar[sql_text.Database]

    def __init__(self, url: URL, settings: SqlSettings, environment: Environment, tls: Tls) -> None:
        self.url = url
        self.settings = settings
        self.environment = environment
        self.tls = tls
        self.pool_size = settings.pool_size or environment.concurrency

    def create_engine(self) -> Engine:
        """Make the pool of connections; none is opened yet."""
        engine = create_engine(
            self.connect_url(),
            connect_args=self.connect_arguments(),
            pool_size=self.pool_size,
            max_overflow=0,
            pool_reset_on_return=None,  # every transaction is ended where a cancellation reaches it
            hide_parameters=True,
            **self.engine_arguments(),
        )
        event.listen(engine, "connect", lambda connection, _: self.connected(connection))
        return engine

    def connect_url(self) -> URL:
        """The URL, as the driver is to be given it."""
        return self.url

    def engine_arguments(self) -> dict[str, Any]:
        """Further arguments of `sqlalchemy.create_engine`."""
        level = self.settings.isolation
        return {"isolation_level": _LEVELS[level]} if level else {}

    @property
    def connect_seconds(self) -> float:
        """How long a connection may take."""
        return self.settings.connect_timeout.total_seconds()

    @abstractmethod
    def connect_arguments(self) -> dict[str, Any]:
        """Arguments for the driver."""

    @abstractmethod
    def connected(self, driver: Any) -> None:
        """Prepare a new connection."""

    def is_alive(self, connection: Connection) -> bool:
        """Whether a connection out of the pool still is one; asked where a cancellation reaches the answer."""
        dialect, driver = connection.dialect, connection.connection.dbapi_connection
        try:
            return dialect.do_ping(driver)  # type: ignore[arg-type]
        except (dialect.loaded_dbapi.Error, OSError):
            return False

    def prepare(self, engine: Engine) -> None:
        """Prepare the database itself, once in a worker's life."""
        del engine

    @abstractmethod
    def begin(self, connection: Connection, *, limit: float, writes: bool) -> None:
        """Begin a transaction.

        Args:
            connection: On which no statement has run since the last transaction.
            limit: Seconds a statement may take where neither settings nor server have a limit.
            writes: Whether one of the statements may write.
        """

    @contextlib.contextmanager
    def alone(self, connection: Connection) -> Iterator[None]:
        """Keep other workers of this database out of what they must not do at once: setting up."""
        del connection
        yield

    @abstractmethod
    def in_transaction(self, driver: Any) -> bool:
        """Whether the transaction still goes on: some statements end it."""

    @abstractmethod
    def cancel(self, driver: Any) -> None:
        """Ask the database, from another thread, to end what a connection does."""

    def cut(self, driver: Any) -> None:
        """Cut the connection to a server that does not end it."""
        self.cancel(driver)

    def give_up(self, connection: Connection, result: CursorResult[Any]) -> None:
        """Do without the rows of a result that were not read yet."""
        del connection, result

    def streams(self, *, reads: bool) -> bool:
        """Whether a statement's rows can be fetched as they are needed."""
        return reads
