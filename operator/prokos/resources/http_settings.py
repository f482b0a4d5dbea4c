"""Settings of executors of type `http`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, field_validator, model_validator

from prokos.resources.base import ITEMS_MAX, LINE_MAX_LENGTH, Model
from prokos.resources.cel import Rule, beyond_cel, cel
from prokos.resources.http_auth import ClientCertificate, HttpAuth
from prokos.resources.http_limits import CircuitBreaker, HttpRetry, Idempotency, RateLimit, Timeouts
from prokos.resources.http_outcomes import Callback, Pagination, StatusOutcome
from prokos.resources.http_text import (
    HAS_FIXED_ORIGIN,
    URL_TEMPLATE_RULES,
    check_header,
    check_url_template,
    fixed_origin,
    text_codec,
)
from prokos.resources.networks import Network
from prokos.resources.secrets import SecretName

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})

_HAS_BODY = f"(self.?body.orValue('') == '' ? self.method in {sorted(BODY_METHODS)} : self.body != 'none')"
"""CEL for `HttpSettings.has_body`."""


class HttpSettings(Model):
    """One HTTP call."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = Field("GET", description="Of the call.")
    url: str = Field(
        max_length=LINE_MAX_LENGTH,
        description="RFC 6570 template over the input, e.g. `https://pay.example/orders/{orderId}`.",
    )
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
        description="`input` (the whole input), `none`, or the name of the input field to send. "
        "Default: `input` for POST, PUT and PATCH, else `none`.",
    )
    body_format: Literal["json", "form", "multipart", "text", "binary"] = Field(
        "json", description="How the body is written."
    )
    max_request_bytes: int = Field(10_000_000, ge=1, description="A longer body fails the task.")
    idempotency: Idempotency = Field(default_factory=Idempotency)
    auth: HttpAuth | None = None
    client_certificate: ClientCertificate | None = None
    ca_secret: SecretName | None = Field(
        None, description="Secret that holds PEM certificates of the authorities to trust, instead of the public ones."
    )
    allowed_networks: list[Network] = Field(
        default_factory=list,
        max_length=ITEMS_MAX,
        description="Private networks this executor may call, as CIDR. All others that are private, loopback, "
        "link-local or metadata addresses are refused.",
    )
    max_redirects: int = Field(0, ge=0, le=20, description="Redirects that are followed; 0 makes each a failure.")
    timeouts: Timeouts = Field(default_factory=Timeouts)
    retry: HttpRetry = Field(default_factory=HttpRetry)
    circuit_breaker: CircuitBreaker | None = None
    rate_limit: RateLimit | None = None
    outcomes: list[StatusOutcome] = Field(
        default_factory=list,
        max_length=ITEMS_MAX,
        description="By default 2xx completes, 408, 425, 429 and 5xx are retried, and the rest fails.",
    )
    pagination: Pagination | None = None
    callback: Callback | None = None
    response_format: Literal["auto", "json", "text", "binary", "file"] = Field(
        "auto", description="How the answer becomes a result; `auto` goes by its Content-Type, JSON or text."
    )
    charset: str | None = Field(None, description="Encoding of text answers, whatever they say themselves.")
    max_response_bytes: int = Field(1_000_000, ge=1, description="A longer answer fails the task.")
    result_variable: str | None = Field(
        None, description="Put status, headers and body into this variable, instead of the body's fields."
    )
    files_directory: str | None = Field(
        None, description="Directory of files that bodies refer to and `responseFormat: file` writes."
    )

    @field_validator("url")
    @classmethod
    @cel(*URL_TEMPLATE_RULES)
    def _template(cls, url: str) -> str:
        check_url_template(url)
        return url

    @field_validator("headers")
    @classmethod
    @beyond_cel("`http.headers` that cannot be sent, or that ProkOS sets itself")
    def _sendable(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            check_header(name, value)
        return headers

    @field_validator("charset")
    @classmethod
    @beyond_cel("`http.charset` that no text encoding has")
    def _known(cls, charset: str | None) -> str | None:
        if charset is not None and text_codec(charset) is None:
            raise ValueError(f"{charset!r} is not the name of a text encoding, such as utf-8 or iso-8859-1")
        return charset

    @model_validator(mode="after")
    @cel(
        Rule(
            f"!(has(self.auth) || has(self.clientCertificate)) || {HAS_FIXED_ORIGIN}",
            "the input decides the host, and so could send the secret anywhere; write scheme and host out, followed "
            "by / or ?",
            ".url",
        )
    )
    def _secret_goes_to_a_known_host(self) -> Self:
        names = [name for name, value in (("auth", self.auth), ("clientCertificate", self.client_certificate)) if value]
        if names and fixed_origin(self.url) is None:
            raise ValueError(
                f"the input decides the host of {self.url!r}, and so could send the secret of {names[0]} anywhere; "
                "write scheme and host out, followed by / or ?"
            )
        return self

    @model_validator(mode="after")
    @cel(
        Rule(
            "self.responseFormat != 'file' || has(self.filesDirectory)",
            "responseFormat: file needs filesDirectory",
            ".responseFormat",
        ),
        Rule("!has(self.pagination) || self.method == 'GET'", "pagination goes with method GET", ".method"),
        Rule(
            "!has(self.pagination) || self.responseFormat in ['auto', 'json']",
            "pagination reads JSON: responseFormat auto or json",
            ".responseFormat",
        ),
        Rule(
            "!(has(self.pagination) && has(self.callback))", "pagination and callback do not go together", ".pagination"
        ),
        Rule(
            "has(self.callback) || !has(self.outcomes) || self.outcomes.all(rule, rule.outcome != 'callback')",
            "outcome: callback needs the settings callback",
            ".outcomes",
        ),
        Rule(
            "!has(self.callback) || !has(self.callback.field) "
            f"|| (self.bodyFormat in ['json', 'form', 'multipart'] && {_HAS_BODY})",
            "callback.field needs a body that is an object: bodyFormat json, form or multipart",
            ".callback",
        ),
    )
    @beyond_cel("the header Content-Type in `http.headers` with `http.bodyFormat: multipart`")
    def _parts_fit_together(self) -> Self:
        if self.body_format == "multipart" and "content-type" in {name.lower() for name in self.headers}:
            raise ValueError("header Content-Type of a multipart body cannot be set: it says where its parts end")
        if self.response_format == "file" and self.files_directory is None:
            raise ValueError("responseFormat: file needs filesDirectory")
        if self.pagination is not None:
            if self.method != "GET":
                raise ValueError(f"pagination goes with method GET, not {self.method}")
            if self.response_format not in ("auto", "json"):
                raise ValueError(f"pagination reads JSON, so responseFormat: {self.response_format} does not fit")
            if self.callback is not None:
                raise ValueError("pagination and callback do not go together")
        if self.callback is None:
            if any(rule.outcome == "callback" for rule in self.outcomes):
                raise ValueError("outcome: callback needs the settings callback")
        elif self.callback.field is not None and (
            self.body_format not in ("json", "form", "multipart") or not self.has_body
        ):
            raise ValueError("callback.field needs a body that is an object: bodyFormat json, form or multipart")
        return self

    @property
    def body_source(self) -> str:
        """What is sent: `input`, `none` or the name of a field."""
        return self.body or ("input" if self.method in BODY_METHODS else "none")

    @property
    def has_body(self) -> bool:
        """Whether calls have a body."""
        return self.body_source != "none"

    @property
    def origins(self) -> list[str]:
        """Scheme, host and port of what is called, as far as the input does not decide it."""
        urls = [self.url]
        if self.auth is not None and self.auth.oauth2 is not None:
            urls.append(self.auth.oauth2.token_url)
        return list(dict.fromkeys(origin for origin in map(fixed_origin, urls) if origin is not None))

    def secret_references(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Every secret the settings name, each with its path."""
        for name, block in (("auth", self.auth), ("clientCertificate", self.client_certificate)):
            if block is not None:
                yield from (((name, *path), secret) for path, secret in block.secret_references())
        if self.ca_secret is not None:
            yield ("caSecret",), self.ca_secret
        if self.callback is not None:
            yield ("callback", "secret"), self.callback.secret
