"""Settings of executors of type `http`."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from prokos.resources.base import Model
from prokos.resources.secrets import SecretName

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
