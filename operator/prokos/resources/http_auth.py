"""How calls of executors of type `http` authenticate: always by the name of a secret, never by its value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, field_validator, model_validator

from prokos.resources.base import LINE_MAX_LENGTH, Model
from prokos.resources.cel import Rule, cel, one_of
from prokos.resources.http_text import URL_RULES, check_header, check_url, may_be_set
from prokos.resources.secrets import SecretName

if TYPE_CHECKING:
    from collections.abc import Iterator


class BasicAuth(Model):
    """User name and the secret that holds the password."""

    username: str = Field(description="User name.")
    password: SecretName = Field(description="Name of the secret that holds the password.")


class ApiKey(Model):
    """A header or a query parameter, and the secret that holds its value."""

    header: str | None = Field(None, max_length=LINE_MAX_LENGTH, description="Header.")
    query: str | None = Field(None, description="Query parameter; servers and proxies log those: prefer a header.")
    secret: SecretName = Field(description="Name of the secret that holds the value.")

    @model_validator(mode="after")
    @cel(
        Rule(one_of("header", "query"), "give exactly one of header or query"),
        Rule(
            f"!has(self.header) || self.header.lowerAscii() == 'authorization' || ({may_be_set('self.header')})",
            "is not the name of a header that settings may set",
            ".header",
        ),
    )
    def _one_place(self) -> Self:
        if (self.header is None) == (self.query is None):
            raise ValueError("give exactly one of header or query")
        if self.header is not None and self.header.lower() != "authorization":
            check_header(self.header)
        return self


class OAuth2(Model):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4): a token is fetched, kept and sent as bearer."""

    token_url: str = Field(
        max_length=LINE_MAX_LENGTH,
        description="Token endpoint, `https://...`; reached like the service, with `caSecret`.",
    )
    client_id: str = Field(description="Id of the client.")
    client_secret: SecretName = Field(description="Name of the secret that holds the client's secret.")
    scopes: list[str] = Field(default_factory=list, description="Scopes that are asked for.")
    parameters: dict[str, str] = Field(
        default_factory=dict, description="Further form fields of the token request, such as `audience`."
    )
    client_authentication: Literal["basic", "body"] = Field(
        "basic", description="Where client id and secret go: the Authorization header, or the form."
    )

    @field_validator("token_url")
    @classmethod
    @cel(*URL_RULES)
    def _plain(cls, url: str) -> str:
        check_url(url, "tokenUrl")
        return url


class HttpAuth(Model):
    """How a call authenticates: one of the fields."""

    bearer: SecretName | None = Field(None, description="Name of the secret that holds the token.")
    basic: BasicAuth | None = None
    api_key: ApiKey | None = None
    oauth2: OAuth2 | None = None

    @model_validator(mode="after")
    @cel(Rule(one_of("bearer", "basic", "apiKey", "oauth2"), "give exactly one of bearer, basic, apiKey or oauth2"))
    def _one(self) -> Self:
        if sum(way is not None for way in (self.bearer, self.basic, self.api_key, self.oauth2)) != 1:
            raise ValueError("give exactly one of bearer, basic, apiKey or oauth2")
        return self

    def secret_references(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """The secrets it names, each with its path below `auth`."""
        if self.bearer is not None:
            yield ("bearer",), self.bearer
        if self.basic is not None:
            yield ("basic", "password"), self.basic.password
        if self.api_key is not None:
            yield ("apiKey", "secret"), self.api_key.secret
        if self.oauth2 is not None:
            yield ("oauth2", "clientSecret"), self.oauth2.client_secret


class ClientCertificate(Model):
    """Mutual TLS: secrets with the PEM certificate (its chain after it) and its PEM key."""

    certificate_secret: SecretName = Field(description="Name of the secret that holds the certificate.")
    key_secret: SecretName = Field(description="Name of the secret that holds the key.")
    password_secret: SecretName | None = Field(None, description="Of an encrypted key.")

    def secret_references(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """The secrets it names, each with its path below `clientCertificate`."""
        yield ("certificateSecret",), self.certificate_secret
        yield ("keySecret",), self.key_secret
        if self.password_secret is not None:
            yield ("passwordSecret",), self.password_secret
