"""PostgreSQL, through psycopg. A transaction carries its own settings, so that pooling proxies may stand between."""

from __future__ import annotations

import contextlib
import re
from datetime import timedelta
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import text

from prokos.tde.sql.database import UNHEARD_SECONDS, Database
from prokos.tde.sql.threads import CANCEL_SECONDS, cut_socket
from prokos.tde.sql.values import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from prokos.resources import sql_text

SETUP_LOCK: Final = 0x70726F6B6F73
"""Key of the advisory lock under which workers set up: the letters "prokos"."""

_ALWAYS: Final = {"DateStyle": "ISO", "IntervalStyle": "iso_8601"}
"""What the readers of values rely on."""


class PostgreSql(Database):
    """A PostgreSQL server."""

    name: ClassVar[sql_text.Database] = "postgresql"

    def create_engine(self) -> Engine:
        """Make the pool; of a read-only executor one of transactions that cannot write."""
        engine = super().create_engine()
        return engine.execution_options(postgresql_readonly=True) if self.settings.read_only else engine

    def connect_arguments(self) -> dict[str, Any]:
        """Arguments for libpq; what the URL says goes before."""
        arguments: dict[str, Any] = {
            "connect_timeout": max(round(self.connect_seconds), 2),  # libpq takes 1 for 2
            "tcp_user_timeout": UNHEARD_SECONDS * 1000,
            "keepalives_idle": UNHEARD_SECONDS,
            "application_name": f"prokos-{self.environment.name}",
            "gssencmode": "disable",
            "prepare_threshold": None,  # prepared statements break behind pooling proxies
            **self.tls.libpq(),
        }
        return {key: value for key, value in arguments.items() if key not in self.url.query}

    def connected(self, driver: Any) -> None:
        """Read values without loss."""
        _register_loaders(driver.adapters)

    def begin(self, connection: Connection, *, limit: float, writes: bool) -> None:
        """Begin, with time-outs. Isolation and read-only are in the BEGIN itself, which psycopg sends."""
        del writes
        settings = self.settings
        values: dict[str, Any] = dict(_ALWAYS)
        if settings.lock_timeout is not None:
            values["lock_timeout"] = _milliseconds(settings.lock_timeout.total_seconds())
        if settings.statement_timeout is not None:
            values["statement_timeout"] = _milliseconds(settings.statement_timeout.total_seconds())
        # A worker that died leaves no statement and no lock behind for ever, unless the server says so itself.
        defaults = {name: _milliseconds(limit) for name in _ORPHANS if name not in values}
        connection.execute(_setting(tuple(values), tuple(defaults)), values | defaults)

    @contextlib.contextmanager
    def alone(self, connection: Connection) -> Iterator[None]:
        """Even CREATE TABLE IF NOT EXISTS fails when two sessions do it at once."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SETUP_LOCK})
        yield

    def in_transaction(self, driver: Any) -> bool:
        """Whether a transaction is open."""
        return driver.info.transaction_status.name in ("INTRANS", "ACTIVE")

    def cancel(self, driver: Any) -> None:
        """Send a cancel request, encrypted like the connection."""
        driver.cancel_safe(timeout=CANCEL_SECONDS)

    def cut(self, driver: Any) -> None:
        """Shut the socket."""
        cut_socket(driver.fileno())


_ORPHANS = ("statement_timeout", "idle_in_transaction_session_timeout")


def _milliseconds(seconds: float) -> str:
    return str(max(round(seconds * 1000), 1))


@cache
def _setting(values: tuple[str, ...], defaults: tuple[str, ...]) -> Any:
    """One query that makes settings for the transaction: `values` always, `defaults` where there is no limit."""
    always = [f"set_config('{name}', :{name}, true)" for name in values]
    unless = [
        f"CASE current_setting('{name}') WHEN '0' THEN set_config('{name}', :{name}, true) END" for name in defaults
    ]
    return text(f"SELECT {', '.join(always + unless)}")


def _register_loaders(adapters: Any) -> None:
    from psycopg.types.json import set_json_loads

    set_json_loads(parse_json, adapters)
    for name, loader in _loaders().items():
        adapters.register_loader(name, loader)


@cache
def _loaders() -> dict[str, Any]:
    """Readers of what Python's own types cannot hold; made here, since psycopg is imported for PostgreSQL only."""
    from psycopg import DataError
    from psycopg.adapt import Loader
    from psycopg.types import datetime as dates
    from psycopg.types.string import TextLoader

    class Interval(Loader):
        def load(self, data: Any) -> timedelta | str:
            return read_interval(bytes(data).decode())

    def textual(base: Any) -> Any:
        class OrText(base):  # type: ignore[misc]
            """Infinity, years before Christ and after 9999 stay what the database calls them."""

            def load(self, data: Any) -> Any:
                try:
                    return super().load(data)
                except DataError:
                    return bytes(data).decode()

        return OrText

    made: dict[str, Any] = {"interval": Interval}
    for name, base in (
        ("date", dates.DateLoader),
        ("time", dates.TimeLoader),
        ("timetz", dates.TimetzLoader),
        ("timestamp", dates.TimestampLoader),
        ("timestamptz", dates.TimestamptzLoader),
    ):
        made[name] = textual(base)
    for kind in ("int4", "int8", "num", "ts", "tstz", "date"):
        made[f"{kind}range"] = made[f"{kind}multirange"] = TextLoader
    return made


_CLOCK = re.compile(r"P(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?[\d.]+)S)?)?")


def read_interval(value: str) -> timedelta | str:
    """Read an interval as PostgreSQL writes it in style `iso_8601`. Years and months have no fixed length: text."""
    match = _CLOCK.fullmatch(value)
    if match is None:
        return value
    days, hours, minutes = (int(part or 0) for part in match.groups()[:3])
    microseconds = int(Decimal(match[4] or 0) * 1_000_000)
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, microseconds=microseconds)
    except OverflowError:
        return value
