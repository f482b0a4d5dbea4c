"""MariaDB and MySQL, through PyMySQL.

PyMySQL has no server-side parameters: it writes values into the statement as literals. `prokos.resources.sql_text`
sees to it that a parameter never stands within a literal, a quoted name or a comment, and `url` that the connection
is in UTF-8; then the server reads every value as the literal it was written as.
"""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import event, text

from prokos.tde.sql.database import Database
from prokos.tde.sql.threads import cut_socket, cutting_after
from prokos.tde.sql.values import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, CursorResult, Engine

    from prokos.resources import sql_text

SETUP_LOCK: Final = "prokos-setup"
"""Name of the lock under which workers set up."""
SETUP_SECONDS: Final = 30
"""How long one worker waits for another to set up."""
CONTROL_SECONDS: Final = 2.0
"""How long the connection that asks to end a statement may take."""

_IN_TRANSACTION: Final = 1
"""SERVER_STATUS_IN_TRANS of the protocol's status flags."""


class MySql(Database):
    """A MariaDB or MySQL server."""

    name: ClassVar[sql_text.Database] = "mysql"

    def create_engine(self) -> Engine:
        """Make the pool."""
        engine = super().create_engine()
        event.listen(engine, "do_connect", lambda _, __, ___, arguments: self._connect(arguments, self.connect_seconds))
        return engine

    def connect_arguments(self) -> dict[str, Any]:
        """Arguments for PyMySQL."""
        context = self.tls.context
        return {
            "connect_timeout": self.connect_seconds,
            "program_name": f"prokos-{self.environment.name}",
            "conv": _converters(),
            "password": (self.url.password or "").encode(),  # PyMySQL would send text in Latin-1
            **({"ssl": context} if context else {"ssl_disabled": True}),
        }

    def connected(self, driver: Any) -> None:
        """Set the session up: times in UTC, values that do not fit refused rather than cut."""
        sessions = ["time_zone = '+00:00'", "sql_mode = CONCAT_WS(',', @@sql_mode, 'STRICT_ALL_TABLES')"]
        if (wait := self.settings.lock_timeout) is not None:
            seconds = math.ceil(wait.total_seconds())
            sessions += [f"innodb_lock_wait_timeout = {seconds}", f"lock_wait_timeout = {seconds}"]
        with driver.cursor() as cursor:
            cursor.execute(f"SET SESSION {', '.join(sessions)}")
            if self.settings.read_only:  # also what follows a statement that ends the transaction
                cursor.execute("SET SESSION TRANSACTION READ ONLY")

    def begin(self, connection: Connection, *, limit: float, writes: bool) -> None:
        """Begin. A connection keeps its time-outs, so they are set once."""
        del writes
        if self.settings.statement_timeout is not None:
            limit = self.settings.statement_timeout.total_seconds()
        if connection.info.get("limit") != limit:
            connection.exec_driver_sql(self._time_out(connection, limit))
            connection.info["limit"] = limit
        connection.exec_driver_sql(f"START TRANSACTION{' READ ONLY' if self.settings.read_only else ''}")

    def _time_out(self, connection: Connection, limit: float) -> str:
        driver: Any = connection.connection.driver_connection
        if "MariaDB" in driver.get_server_info():
            # A worker that died leaves no statement and no lock behind for ever.
            own, idle = ("max_statement_time", "idle_transaction_timeout")
            if self.settings.statement_timeout is None:
                least = f"IF(@@{own} > 0, LEAST(@@{own}, {limit:.3f}), {limit:.3f})"
                return f"SET SESSION {own} = {least}, {idle} = {math.ceil(limit)}"
            return f"SET SESSION {own} = {limit:.3f}, {idle} = {math.ceil(limit)}"
        return f"SET SESSION max_execution_time = {math.ceil(limit * 1000)}"

    @contextlib.contextmanager
    def alone(self, connection: Connection) -> Iterator[None]:
        """A lock of its own: data definition ends every transaction."""
        waited = {"name": SETUP_LOCK, "seconds": SETUP_SECONDS}
        if connection.scalar(text("SELECT GET_LOCK(:name, :seconds)"), waited) != 1:
            raise TimeoutError(f"another worker has been setting up the database for {SETUP_SECONDS} s")
        try:
            yield
        finally:
            connection.scalar(text("SELECT RELEASE_LOCK(:name)"), {"name": SETUP_LOCK})

    def in_transaction(self, driver: Any) -> bool:
        """Whether a transaction is open, by the server's last word."""
        return bool(driver.server_status & _IN_TRANSACTION)

    def cancel(self, driver: Any) -> None:
        """Kill the query, over a connection of its own."""
        arguments = {**self.url.translate_connect_args(username="user"), **self.url.query, **self.connect_arguments()}
        arguments |= {"connect_timeout": CONTROL_SECONDS, "read_timeout": CONTROL_SECONDS}
        with contextlib.closing(self._connect(arguments, CONTROL_SECONDS)) as control:
            control.query(f"KILL QUERY {driver.thread_id():d}")

    def cut(self, driver: Any) -> None:
        """Shut the socket."""
        if (connection := driver._sock) is not None:
            cut_socket(connection.fileno())

    def _connect(self, arguments: dict[str, Any], seconds: float) -> Any:
        """Connect within a time; PyMySQL's own time-out ends with the first byte of a server that drips."""
        import pymysql

        driver = pymysql.connect(**arguments, defer_connect=True)
        with cutting_after(seconds, lambda: self.cut(driver)):
            driver.connect()
        return driver

    def give_up(self, connection: Connection, result: CursorResult[Any]) -> None:
        """End the query, since the protocol has the client read all of its rows otherwise."""
        import pymysql

        if (cursor := result.cursor) is None:  # all of them were read
            return
        with contextlib.suppress(pymysql.Error):
            self.cancel(connection.connection.driver_connection)
        with contextlib.suppress(pymysql.Error):  # the end of the query is an error to whoever reads it
            cursor.close()

    def streams(self, *, reads: bool) -> bool:
        """Always: rows come as they are read, whatever the statement is."""
        del reads
        return True


@cache
def _converters() -> dict[Any, Any]:
    """PyMySQL's own, but for the types that it cannot hold without loss."""
    from pymysql.constants import FIELD_TYPE
    from pymysql.converters import conversions, convert_datetime

    def instant(value: str) -> datetime | str:
        """TIMESTAMP is an instant, and the session's zone is UTC; the zero date is no date and stays text."""
        read = convert_datetime(value)
        return read.replace(tzinfo=UTC) if isinstance(read, datetime) else str(read)

    changed = {
        FIELD_TYPE.TIMESTAMP: instant,
        FIELD_TYPE.TIME: str,  # a time of day, or a length of time up to 838 hours: nobody knows
        FIELD_TYPE.BIT: lambda value: int.from_bytes(value, "big"),
        FIELD_TYPE.JSON: parse_json,
    }
    return {**conversions, **changed}
