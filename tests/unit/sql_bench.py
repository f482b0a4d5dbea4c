"""The `sql` executor on a bench: one that a test configures, over any database."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from prokos.resources.sql_settings import SqlSettings
from prokos.tde import Context, Environment, Secrets
from prokos.tde.sql.executor import SqlExecutor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

URL = "sqlite:///orders.db"


def context(key: str = "1-1", timeout: float = 60) -> Context:
    """A task's context; attempts of one task share the key."""
    return Context(key, timedelta(seconds=timeout), structlog.get_logger())


def make(
    statement: str | None,
    *,
    url: str = URL,
    workdir: Path = Path(),
    concurrency: int = 4,
    secrets: dict[str, str] | None = None,
    name: str = "orders",
    **settings: Any,
) -> SqlExecutor:
    """An executor that has not started; its URL is a secret, as it is in earnest."""
    environment = Environment(name, workdir, concurrency, Secrets({"database-url": url, **(secrets or {})}))
    return SqlExecutor(SqlSettings(url_secret="database-url", statement=statement, **settings), environment)


@contextlib.asynccontextmanager
async def executing(statement: str | None = None, **options: Any) -> AsyncIterator[SqlExecutor]:
    """A started executor."""
    executor = make(statement, **options)
    await executor.start()
    try:
        yield executor
    finally:
        await executor.close()


async def run(
    statement: str | None = None, data: dict[str, Any] | None = None, *, key: str = "1-1", **options: Any
) -> dict[str, Any]:
    """Execute one task with an executor of its own."""
    async with executing(statement, **options) as executor:
        return await executor.execute(data or {}, context(key))


HOSTILE = (
    "'; DROP TABLE orders; --",
    "' OR '1'='1",
    "\\'; DROP TABLE orders; -- ",
    "\\",
    "'",
    '"; DROP TABLE orders; --',
    "` OR 1=1 -- ",
    "*/ ; DROP TABLE orders; /*",
    "\n; DROP TABLE orders; --",
    "%' OR 1=1 -- %",
    "%s",
    "%(v)s",
    "%%",
    "?",
    "$1",
    ":v",
    ":other",
    "__[POSTCOMPILE_v]",
    "{{ 7 * 7 }}",
    "${jndi:ldap://localhost/x}",
    "$$; DROP TABLE orders; $$",
    "=1+1",
    "\u02bc OR 1=1 -- \uff07",  # what some conversions turn into a quote
    "\u00bf\u5c27' OR 1=1 -- ",
    "ü🎈\u202e\u0000"[:-1],
    "\x1a\x08\t\r\n",
)
"""Texts that would do harm as a part of a statement, or of a template."""
