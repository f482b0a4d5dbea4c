"""Settings of executors of type `sql`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from prokos.resources.base import ITEMS_MAX, LINE_MAX_LENGTH, Duration, Model
from prokos.resources.cel import Rule, beyond_cel, cel, keyed, one_of
from prokos.resources.secrets import SecretName
from prokos.resources.sql_text import DATABASES, Database, SqlText

if TYPE_CHECKING:
    from collections.abc import Iterator

ParameterType = Literal[
    "text", "integer", "decimal", "boolean", "timestamp", "date", "time", "interval", "bytes", "json", "array"
]
"""What a value of the input is turned into before it is bound."""

ColumnType = Literal["text", "json", "boolean"]
"""What a value of the result is read as."""

Isolation = Literal["readCommitted", "repeatableRead", "serializable"]

_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
_SCHEMES: dict[str, Database] = {
    "sqlite": "sqlite",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}


class SqlError(Model):
    """A database error that is a business error. Everything that is set must fit."""

    sqlstate: str | None = Field(None, description="Five-character SQLSTATE; not SQLite.", pattern=r"^[0-9A-Z]{5}$")
    errno: int | None = Field(None, description="The database's error number; MariaDB, MySQL and SQLite.")
    constraint: str | None = Field(None, description="Name of the constraint or key that was violated.")
    contains: str | None = Field(None, description="Text the database's message contains; any database.")
    code: str = Field(description="BPMN error code.")
    message: str | None = Field(None, description="Message of the BPMN error. Default: the database's.")

    @model_validator(mode="after")
    @cel(
        Rule(
            "has(self.sqlstate) || has(self.errno) || has(self.constraint) || has(self.contains)",
            "give sqlstate, errno, constraint or contains",
        )
    )
    def _condition(self) -> Self:
        if all(value is None for value in (self.sqlstate, self.errno, self.constraint, self.contains)):
            raise ValueError("give sqlstate, errno, constraint or contains")
        return self


class SqlExpect(Model):
    """How many rows a statement must return or change; otherwise the whole transaction is undone."""

    rows: int | None = Field(None, ge=0, description="Exactly so many; of a batch, with each element.")
    at_least: int | None = Field(None, ge=1, description="At least so many.")
    code: str | None = Field(None, description="BPMN error code for another number. Without it the task fails.")

    @model_validator(mode="after")
    @cel(Rule(one_of("rows", "atLeast"), "give either rows or atLeast"))
    def _one(self) -> Self:
        if (self.rows is None) == (self.at_least is None):
            raise ValueError("give either rows or atLeast")
        return self


class SqlStatement(Model):
    """One of several statements of a transaction."""

    name: Annotated[str, StringConstraints(pattern=_NAME)] = Field(
        description="Name of the statement's part of the result."
    )
    statement: str = Field(description="One statement; `:name` is a field of the input, bound as a parameter.")
    batch: str | None = Field(
        None,
        description="Name of the input field, `a.b` descends, that holds a list of objects: the statement is run "
        "with each. What an object lacks is taken from the input.",
    )
    expect: SqlExpect | None = None


class SqlTls(Model):
    """How the connection is encrypted. Without this block: `verify-full`, but not on this machine."""

    mode: Literal["verify-full", "verify-ca", "require", "disable"] = Field(
        "verify-full", description="Whether the server's certificate is checked, with its name or without."
    )
    ca_secret: SecretName | None = Field(
        None, description="Secret with PEM certificates of the authorities to trust, instead of the public ones."
    )
    certificate_secret: SecretName | None = Field(None, description="Secret with the client's PEM certificate.")
    key_secret: SecretName | None = Field(None, description="Secret with the client's PEM key.")

    @model_validator(mode="after")
    @cel(
        Rule("has(self.certificateSecret) == has(self.keySecret)", "certificateSecret and keySecret go together"),
        Rule(
            "!has(self.caSecret) || self.mode.startsWith('verify')",
            "this mode checks no certificate, so caSecret does not belong here",
            ".caSecret",
        ),
    )
    def _whole(self) -> Self:
        if (self.certificate_secret is None) != (self.key_secret is None):
            raise ValueError("certificateSecret and keySecret go together")
        if self.ca_secret is not None and not self.mode.startswith("verify"):
            raise ValueError(f"mode {self.mode} checks no certificate, so caSecret does not belong here")
        return self


class SqlSettings(Model):
    """Statements with bound parameters, taken from the input by name (`:orderId`), in one transaction."""

    url: str | None = Field(
        None,
        max_length=LINE_MAX_LENGTH,
        description="SQLAlchemy URL without a password, e.g. `sqlite:///orders.db`, `postgresql://host/orders` or "
        "`mariadb://host/orders`.",
    )
    url_secret: SecretName | None = Field(None, description="Secret that holds the whole URL.")
    statement: str | None = Field(
        None, description="One statement; `:name` is a field of the input, bound as a parameter."
    )
    batch: str | None = Field(
        None,
        description="Name of the input field, `a.b` descends, that holds a list of objects: the statement is run "
        "with each. What an object lacks is taken from the input.",
    )
    expect: SqlExpect | None = None
    statements: list[SqlStatement] = Field(
        default_factory=list,
        max_length=ITEMS_MAX,
        description="Several statements, in place of `statement`; one transaction.",
        json_schema_extra=keyed("name"),
    )
    types: dict[str, ParameterType] = Field(
        default_factory=dict, description="Parameter to the type its value has for the database."
    )
    columns: dict[str, ColumnType] = Field(
        default_factory=dict, description="Column of the results to what its values are read as."
    )
    decimals: Literal["number", "text"] = Field(
        "number", description="`number`: as text only where a double is not exact. `text`: always."
    )
    setup: list[str] = Field(
        default_factory=list,
        description="Statements run when a worker starts, in one transaction, by one worker at a time; they must "
        "bear repetition, such as CREATE TABLE IF NOT EXISTS.",
    )
    read_only: bool = Field(False, description="The database refuses every write.")
    isolation: Isolation | None = Field(None, description="Isolation of the transaction. Default: the database's.")
    exactly_once: bool = Field(
        False, description="Keep the task's key and result in the same transaction; a repetition returns the result."
    )
    exactly_once_table: str = Field(
        "prokos_executions",
        description="Table of keys and results.",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$",
    )
    exactly_once_retention: Duration = Field(
        timedelta(days=30), ge=timedelta(hours=1), description="How long keys and results are kept."
    )
    max_rows: int = Field(1_000, ge=1, description="More rows than this fail the task; nothing is cut silently.")
    max_bytes: int = Field(1_000_000, ge=1, description="A result longer than this, as JSON, fails the task.")
    pool_size: int | None = Field(None, ge=1, le=256, description="Connections of a worker. Default: `concurrency`.")
    connect_timeout: Duration = Field(
        timedelta(seconds=10), ge=timedelta(seconds=1), description="Longest wait for a connection."
    )
    lock_timeout: Duration | None = Field(
        None, gt=timedelta(), description="Longest wait for a lock. Default: the database's; SQLite: 10s."
    )
    statement_timeout: Duration | None = Field(
        None, gt=timedelta(), description="Longest statement. Default: a little longer than the executor's `timeout`."
    )
    tls: SqlTls | None = None
    errors: list[SqlError] = Field(
        default_factory=list, max_length=ITEMS_MAX, description="The first one that fits decides."
    )

    @property
    def all_statements(self) -> list[SqlStatement]:
        """What a task runs, also if it is one statement without a name."""
        if self.statement is None:
            return self.statements
        return [SqlStatement(name="statement", statement=self.statement, batch=self.batch, expect=self.expect)]

    def secret_references(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Every mention of a secret, with its path below `sql`."""
        if self.url_secret is not None:
            yield ("urlSecret",), self.url_secret
        if self.tls is not None:
            for field in ("ca_secret", "certificate_secret", "key_secret"):
                if (name := getattr(self.tls, field)) is not None:
                    yield ("tls", type(self.tls).model_fields[field].alias or field), name

    @model_validator(mode="after")
    @cel(
        Rule(one_of("url", "urlSecret"), "give either url or urlSecret"),
        Rule(
            rf"!has(self.url) || self.url.matches(r'^({'|'.join(_SCHEMES)})([+]\w+)?://')",
            "url must start with sqlite://, postgresql://, mariadb:// or mysql://",
            ".url",
        ),
        Rule(
            "!has(self.url) || !self.url.matches('^[^/]+//[^/?#]*:[^/?#@]+@|[?&]password=')",
            "url holds a password; put the whole URL into a secret and name it in urlSecret",
            ".url",
        ),
    )
    def _one_url(self) -> Self:
        if (self.url is None) == (self.url_secret is None):
            raise ValueError("give either url or urlSecret")
        if self.url is not None:
            if _database_of(self.url) is None:
                raise ValueError("url must start with sqlite://, postgresql://, mariadb:// or mysql://")
            if re.match(r"[^/]+//[^/?#]*:[^/?#@]+@", self.url) or re.search(r"[?&]password=", self.url):
                raise ValueError("url holds a password; put the whole URL into a secret and name it in urlSecret")
        return self

    @model_validator(mode="after")
    @cel(
        Rule(
            "has(self.statement) != (self.?statements.orValue([]).size() > 0)",
            "give either statement or statements",
        ),
        Rule(
            "self.?statements.orValue([]).size() == 0 || (self.?batch.orValue('') == '' && !has(self.expect))",
            "batch and expect belong to each of the statements",
        ),
    )
    @beyond_cel(
        "text of `sql.statement` and `sql.statements` that is no single statement, or whose parameters cannot be bound",
        "`sql.types` of what is no parameter of a statement",
    )
    def _statements(self) -> Self:
        if (self.statement is None) == (not self.statements):
            raise ValueError("give either statement or statements")
        if self.statements and (self.batch or self.expect):
            raise ValueError("batch and expect belong to each of the statements")
        names = [one.name for one in self.statements]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two statements are called {twice[0]!r}")
        database = _database_of(self.url or "")
        for one in self.all_statements:
            _check(one, (database,) if database else DATABASES)
        parameters = {name for one in self.all_statements for name in _parameters(one.statement)}
        if unknown := [name for name in self.types if name not in parameters]:
            raise ValueError(f"types names {unknown[0]!r}, which is no parameter of a statement")
        return self

    @model_validator(mode="after")
    @cel(
        Rule(
            "!self.readOnly || !(self.exactlyOnce || self.?setup.orValue([]).size() > 0)",
            "readOnly allows no setup and no exactlyOnce, which write",
            ".readOnly",
        )
    )
    def _read_only_writes_nothing(self) -> Self:
        if self.read_only and (self.setup or self.exactly_once):
            raise ValueError(f"readOnly allows no {'setup' if self.setup else 'exactlyOnce'}, which writes")
        return self


def _database_of(url: str) -> Database | None:
    match = re.match(r"(\w+)(\+\w+)?://", url)
    return _SCHEMES.get(match[1]) if match else None


def _check(one: SqlStatement, databases: tuple[Database, ...]) -> None:
    """Refuse a statement that all of the databases it may be for refuse."""
    refusals: list[str] = []
    for database in databases:
        try:
            SqlText(one.statement, database).check()
        except ValueError as error:
            refusals.append(str(error))
    if len(refusals) == len(databases):
        raise ValueError(f"{one.name}: {refusals[0]}" if one.name != "statement" else f"statement: {refusals[0]}")


def _parameters(statement: str) -> set[str]:
    return {name for database in DATABASES for name in SqlText(statement, database).parameters}
