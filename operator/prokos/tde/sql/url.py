"""Reading a database's URL: which database, where, and with which driver. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL

_DRIVERS: Final = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mysql+pymysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "mariadb+pymysql": "mysql+pymysql",
}

_MYSQL_OPTIONS: Final = frozenset({"unix_socket", "charset", "collation", "bind_address", "program_name"})
"""Options of PyMySQL that a URL may hold. Others open doors: to files of the worker, to several statements at once."""


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
        known = "sqlite, postgresql, mariadb or mysql"
        raise ValueError(f"the database URL of spec.sql starts with {url.drivername}://; use {known}")
    url = url.set(drivername=driver)
    if driver == _DRIVERS["sqlite"]:
        return _sqlite(url, workdir)
    if driver == _DRIVERS["mysql"]:
        return _mysql(url)
    return url


def _sqlite(url: URL, workdir: Path) -> URL:
    if not url.database or url.database == ":memory:" or url.query.get("mode") == "memory":
        raise ValueError("the database URL of spec.sql names no file; a database in memory ends with its worker")
    if url.database.startswith("file:"):
        return url
    return url.set(database=str(workdir / url.database))


def _mysql(url: URL) -> URL:
    for option in url.query:
        if option not in _MYSQL_OPTIONS:
            known = ", ".join(sorted(_MYSQL_OPTIONS))
            raise ValueError(
                f"the database URL of spec.sql has the option {option}; there are {known}, and spec.sql.tls"
            )
    if url.query.get("charset", "utf8mb4") != "utf8mb4":
        raise ValueError(
            "the database URL of spec.sql has another charset than utf8mb4, which is what values are sent in"
        )
    return url.update_query_dict({"charset": "utf8mb4"})


def is_local(url: URL) -> bool:
    """Whether the server is on this machine: a Unix socket, a loopback address or no host at all."""
    hosts = [part for value in (url.host, url.query.get("host"), url.query.get("hostaddr")) for part in _parts(value)]
    return all(_is_loopback(host) for host in hosts)


def _parts(value: str | tuple[str, ...] | None) -> list[str]:
    texts = (value,) if isinstance(value, str) else value or ()
    return [part for text in texts for part in text.split(",")]


def _is_loopback(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        # A port may follow in PostgreSQL's list of hosts, but not in the colons of an IPv6 address.
        return ip_address(host.strip("[]") if host.count(":") > 1 else host.partition(":")[0]).is_loopback
    except ValueError:
        return False
