"""TaskExecutor: one type of TDE, what it accepts and how its workers run."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from prokos.resources.base import API_VERSION, Duration, Metadata, Model

ExecutorType = Literal["script", "http", "sql", "python"]

SecretName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


RESERVED_NAMES = frozenset({"engine", "kernel", "pdo", "router", "none"})
"""Names no executor may have: those of the system's own parts, and the router model's word for no executor."""


class AcceptRule(Model):
    """A task is accepted when every field that is set equals the task's."""

    job_type: str | None = Field(None, description="The job type, exactly as the process writes it.")
    process: str | None = Field(None, description="The BPMN process id.")
    element: str | None = Field(None, description="The id of the task's element.")
    headers: dict[str, str] = Field(default_factory=dict, description="Task headers that must have these values.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.job_type or self.process or self.element or self.headers):
            raise ValueError("an empty rule would accept every task; set jobType, process, element or headers")
        return self


class FeelMapping(Model):
    """One variable mapping, evaluated by the engine, with the meaning of `zeebe:input` and `zeebe:output`."""

    source: str = Field(description="FEEL expression, starting with `=`.", pattern=r"^=")
    target: str = Field(
        description="Name of the variable, dots descend into it.", pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
    )


class Backoff(Model):
    """How long a failed task waits before its next attempt. The task itself says how many attempts it has."""

    initial: Duration = Field(timedelta(seconds=1), ge=timedelta())
    multiplier: float = Field(2.0, ge=1, description="1 is a fixed back-off, 2 doubles it each time.")
    maximum: Duration = timedelta(minutes=5)
    jitter: float = Field(0.2, ge=0, le=1, description="Share of the delay that is random.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.initial > self.maximum:
            raise ValueError(f"initial ({self.initial}) is longer than maximum ({self.maximum})")
        return self


class Scaling(Model):
    """How many workers run."""

    min: int = Field(1, ge=0)
    max: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is greater than max ({self.max})")
        return self


class SecretKeyRef(Model):
    """A key of a Kubernetes Secret in the executor's namespace."""

    name: str
    key: str


class Secret(Model):
    """A secret the executor may use, by reference. Its value never enters variables, logs or errors."""

    name: SecretName
    env: str | None = Field(None, description="Name of an environment variable that holds the value.")
    file: str | None = Field(None, description="Absolute path of a file that holds the value.")
    secret_key_ref: SecretKeyRef | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.env, self.file, self.secret_key_ref)) != 1:
            raise ValueError(f"secret {self.name!r} needs exactly one of env, file or secretKeyRef")
        return self


class ScriptSettings(Model):
    """A script or any command.

    Input arrives as JSON on standard input and in the file `$PROKOS_INPUT`; the result is JSON in the file
    `$PROKOS_OUTPUT`, a business error is `{"code", "message", "variables"}` in the file `$PROKOS_ERROR`.
    """

    language: Literal["python", "shell"] | None = Field(
        None, description="`python` calls the script's `main(input)`; `shell` is `/bin/sh -e`."
    )
    source: str | None = Field(None, description="The script's text, for `language`.")
    command: list[str] | None = Field(
        None,
        min_length=1,
        description="Program and arguments, instead of a script; runs in the executor's work directory.",
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="Environment variables; the worker's own are not passed on."
    )
    secret_env: dict[str, SecretName] = Field(
        default_factory=dict, description="Environment variable to the name of one of the executor's secrets."
    )
    max_output_bytes: int = Field(1_000_000, ge=1, description="Longest result, and longest log that is kept.")

    @model_validator(mode="after")
    def _script_or_command(self) -> Self:
        for name in (*self.env, *self.secret_env):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith("PROKOS_"):
                raise ValueError(f"{name!r} cannot be an environment variable here: letters, digits and _, no PROKOS_")
        if twice := self.env.keys() & self.secret_env.keys():
            raise ValueError(f"{min(twice)} is in env and in secretEnv")
        if (self.source is None) == (self.command is None):
            raise ValueError("give either source (with language) or command")
        if (self.source is None) != (self.language is None):
            raise ValueError("language goes with source: python or shell")
        return self


StatusPattern = Annotated[str, StringConstraints(pattern=r"^[1-5](\d\d|xx)$")]


class StatusOutcome(Model):
    """What an HTTP status means for the task. The first rule that matches decides."""

    status: StatusPattern = Field(description="A status such as `402`, or a class such as `5xx`.")
    outcome: Literal["complete", "error", "retry", "fail"]
    code: str | None = Field(None, description="BPMN error code, for `error`.")
    message: str | None = None

    @model_validator(mode="after")
    def _error_has_code(self) -> Self:
        if (self.outcome == "error") != (self.code is not None):
            raise ValueError("code goes with outcome: error, and is needed there")
        return self


class BasicAuth(Model):
    """User name and the secret that holds the password."""

    username: str
    password: SecretName


class ApiKey(Model):
    """A header and the secret that holds its value."""

    header: str
    secret: SecretName


class HttpAuth(Model):
    """How a call authenticates: one of the fields."""

    bearer: SecretName | None = None
    basic: BasicAuth | None = None
    api_key: ApiKey | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(way is not None for way in (self.bearer, self.basic, self.api_key)) != 1:
            raise ValueError("give exactly one of bearer, basic or apiKey")
        return self


_URL = re.compile(r"(?P<origin>https?://[^/?#{}@\s]+)(?:$|[/?#]|\{[/?])")
"""A URL template whose scheme, host and port no input can change."""

_MANAGED_HEADERS = {
    "host": "it follows from url",
    "content-length": "it follows from body",
    "transfer-encoding": "it follows from body",
    "connection": "connections are the worker's",
    "authorization": "use auth, which takes it from a secret",
}


def fixed_origin(template: str) -> str | None:
    """Scheme, host and port of a URL template; None when they depend on the input."""
    match = _URL.match(template)
    return match["origin"] if match else None


class HttpSettings(Model):
    """One HTTP call."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: str = Field(description="RFC 6570 template over the input, e.g. `https://pay.example/orders/{orderId}`.")
    query: dict[str, str] = Field(
        default_factory=dict,
        description="Query parameter to the name of an input field, `a.b` descends; null leaves the parameter out.",
    )
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="Over the defaults Accept, Content-Type and, but for GET and HEAD, Idempotency-Key; an empty "
        "value removes a default.",
    )
    body: str | None = Field(
        None,
        description="`input` (whole input as JSON), `none`, or the name of the input field to send. "
        "Default: `input` for POST, PUT and PATCH, else `none`.",
    )
    auth: HttpAuth | None = None
    allowed_networks: list[str] = Field(
        default_factory=list,
        description="Private networks this executor may call, as CIDR. All others that are private, loopback, "
        "link-local or metadata addresses are refused.",
    )
    outcomes: list[StatusOutcome] = Field(
        default_factory=list,
        description="By default 2xx completes, 408, 425, 429 and 5xx are retried, and the rest fails.",
    )
    max_response_bytes: int = Field(1_000_000, ge=1)
    result_variable: str | None = Field(
        None, description="Put status, headers and body into this variable, instead of the body's fields."
    )
    ca_secret: SecretName | None = Field(
        None, description="Secret that holds PEM certificates of the authorities to trust, instead of the public ones."
    )

    @field_validator("url")
    @classmethod
    def _template(cls, url: str) -> str:
        if re.search(r"[{}]", re.sub(r"\{[^{}\s]+\}", "", url)):
            raise ValueError(f"{url!r} is not a URL template: a brace stands alone, or around nothing")
        if not re.match(r"https?://|\{\+", url):
            raise ValueError(f"{url!r} does not start with http:// or https://")
        if re.match(r"https?://[^/?#{]*@", url):
            raise ValueError("a URL must not hold credentials; use auth")
        return url

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ValueError(f"{name!r} is not the name of a header")
            if name.lower() in _MANAGED_HEADERS:
                raise ValueError(f"header {name} cannot be set: {_MANAGED_HEADERS[name.lower()]}")
            if not re.fullmatch(r"[\t\x20-\x7e]*", value):
                raise ValueError(f"header {name} has a line break or another character that headers cannot hold")
        return headers

    @field_validator("allowed_networks")
    @classmethod
    def _networks(cls, networks: list[str]) -> list[str]:
        for network in networks:
            ip_network(network)
        return networks

    @model_validator(mode="after")
    def _secret_goes_to_a_known_host(self) -> Self:
        if self.auth is not None and fixed_origin(self.url) is None:
            raise ValueError(
                f"the input decides the host of {self.url!r}, and so could send the secret of auth anywhere; write "
                "scheme and host out, followed by / or ?"
            )
        return self


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


class PythonSettings(Model):
    """A class of the user's, a subclass of `prokos.tde.Executor`."""

    executor: str = Field(description="`package.module:Class`", pattern=r"^[\w.]+:\w+$")
    settings: dict[str, Any] = Field(default_factory=dict, description="Given to the class.")
    path: str | None = Field(None, description="Directory to import from, relative to the manifest.")


class TaskExecutorSpec(Model):
    """What an executor does, what it accepts and how it runs."""

    type: ExecutorType
    description: str = Field("", description="What it does, in words: the LLM router reads this and nothing else.")
    accepts: list[AcceptRule] = Field(default_factory=list)
    script: ScriptSettings | None = None
    http: HttpSettings | None = None
    sql: SqlSettings | None = None
    python: PythonSettings | None = None
    input_schema: dict[str, Any] | None = Field(None, description="JSON Schema the input must satisfy.")
    output_schema: dict[str, Any] | None = Field(None, description="JSON Schema the output must satisfy.")
    inputs: list[FeelMapping] = Field(default_factory=list)
    outputs: list[FeelMapping] = Field(default_factory=list)
    backoff: Backoff = Field(default_factory=Backoff)
    timeout: Duration = Field(timedelta(seconds=60), gt=timedelta(), description="Longest execution of one attempt.")
    concurrency: int = Field(4, ge=1, le=256, description="Tasks one worker runs at a time.")
    scaling: Scaling = Field(default_factory=Scaling)
    secrets: list[Secret] = Field(default_factory=list)

    @model_validator(mode="after")
    def _settings_match_type(self) -> Self:
        blocks = {"script": self.script, "http": self.http, "sql": self.sql, "python": self.python}
        if blocks[self.type] is None:
            raise ValueError(f"type is {self.type!r}, so the block {self.type!r} is needed")
        if others := [name for name, block in blocks.items() if block is not None and name != self.type]:
            raise ValueError(f"type is {self.type!r}, so the block {others[0]!r} does not belong here")
        return self

    @property
    def settings(self) -> ScriptSettings | HttpSettings | SqlSettings | PythonSettings:
        """The block of settings that belongs to `type`."""
        block = getattr(self, self.type)
        assert isinstance(block, ScriptSettings | HttpSettings | SqlSettings | PythonSettings)  # noqa: S101
        return block


class TaskExecutor(Model):
    """The resource: it becomes a TDE process and the workers that execute it."""

    api_version: Literal["prokos.io/v1alpha1"] = API_VERSION
    kind: Literal["TaskExecutor"] = "TaskExecutor"
    metadata: Metadata
    spec: TaskExecutorSpec
    status: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _name_is_free(self) -> Self:
        if self.metadata.name in RESERVED_NAMES:
            raise ValueError(f"metadata.name {self.metadata.name!r} is the name of a part of ProkOS; choose another")
        return self
