"""Settings of executors of type `sql`."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, model_validator

from prokos.resources.base import Model
from prokos.resources.secrets import SecretName


class SqlError(Model):
    """A database error that is a business error."""

    sqlstate: str | None = Field(None, description="Five-character SQLSTATE; PostgreSQL.")
    contains: str | None = Field(None, description="Text the database's message contains; any database.")
    code: str = Field(description="BPMN error code.")

    @model_validator(mode="after")
    def _condition(self) -> Self:
        if (self.sqlstate is None) == (self.contains is None):
            raise ValueError("give either sqlstate or contains")
        return self


class SqlSettings(Model):
    """One statement with bound parameters, taken from the input by name (`:orderId`)."""

    url: str | None = Field(
        None,
        description="SQLAlchemy URL without a password, e.g. `sqlite:///orders.db` or `postgresql://host/orders`.",
    )
    url_secret: SecretName | None = Field(None, description="Secret that holds the whole URL.")
    statement: str
    setup: list[str] = Field(
        default_factory=list,
        description="Statements run when a worker starts, in one transaction, by one worker at a time; they must "
        "bear repetition, such as CREATE TABLE IF NOT EXISTS.",
    )
    max_rows: int = Field(1_000, ge=1, description="More rows than this fail the task; nothing is cut silently.")
    errors: list[SqlError] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if (self.url is None) == (self.url_secret is None):
            raise ValueError("give either url or urlSecret")
        if self.url is not None:
            if not re.match(r"(sqlite|postgres(ql)?)(\+\w+)?://", self.url):
                raise ValueError("url must start with sqlite:// or postgresql://")
            if re.match(r"[^/]+//[^/?#]*:[^/?#@]+@", self.url) or re.search(r"[?&]password=", self.url):
                raise ValueError("url holds a password; put the whole URL into a secret and name it in urlSecret")
        return self
