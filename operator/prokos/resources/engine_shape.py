"""What an engine that a chart installs is like: its storage, its volume, who may use it."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from prokos.resources.base import LINE_MAX_LENGTH, Model
from prokos.resources.cel import Rule, cel, one_of
from prokos.resources.pods import Quantity
from prokos.resources.secrets import SecretKeyRef


class EngineStorage(Model):
    """Where the engine exports its history to, which Operate and the search API read. ProkOS needs none."""

    type: Literal["none", "h2", "postgresql"] = Field(
        "none",
        description="`none`; `h2`, a database in the broker itself, for one broker and for development; `postgresql`.",
    )
    url: str | None = Field(
        None,
        pattern=r"^jdbc:postgresql://[^\s]+$",
        max_length=LINE_MAX_LENGTH,
        description="JDBC address of a PostgreSQL database, `jdbc:postgresql://HOST:PORT/DATABASE`.",
    )
    username: str | None = Field(None, description="User of the database.")
    password_secret_ref: SecretKeyRef | None = Field(None, description="Password of the user.")

    @model_validator(mode="after")
    @cel(
        Rule(
            "self.type == 'postgresql' ? has(self.url) && has(self.username) && has(self.passwordSecretRef) "
            ": !has(self.url) && !has(self.username) && !has(self.passwordSecretRef)",
            "type 'postgresql' needs url, username and passwordSecretRef, which do nothing with another type",
            ".type",
        ),
        Rule(
            "!has(self.url) || !self.url.matches('(?i)[?&]password=|://[^/@]*@')",
            "url must not hold a password; name it with username and passwordSecretRef",
            ".url",
        ),
    )
    def _consistent(self) -> Self:
        given = {"url": self.url, "username": self.username, "passwordSecretRef": self.password_secret_ref}
        if self.type == "postgresql" and (missing := [name for name, value in given.items() if value is None]):
            raise ValueError(f"type 'postgresql' needs {' and '.join(missing)}")
        if self.type != "postgresql" and (extra := [name for name, value in given.items() if value is not None]):
            raise ValueError(f"{' and '.join(extra)} would do nothing with type {self.type!r}; take 'postgresql'")
        if self.url and re.search(r"[?&]password=|://[^/@]*@", self.url, re.IGNORECASE):
            raise ValueError("url must not hold a password; name it with username and passwordSecretRef")
        return self


class EngineVolume(Model):
    """The persistent volume of each broker, which holds all running instances."""

    size: Quantity | None = Field(None, description="Default: the chart's.")
    storage_class_name: str | None = Field(None, description="Default: the cluster's.")


class EngineUser(Model):
    """The user that ProkOS is, with basic authentication."""

    username: str = Field("prokos", description="Its name.")
    password_secret_ref: SecretKeyRef = Field(description="Its password.")


class EngineOidc(Model):
    """An OpenID Connect provider, and the client that both the engine and ProkOS are at it."""

    issuer: str = Field(pattern=r"^https?://\S+$", description="URL of the issuer, as it is in its tokens.")
    token_url: str = Field(pattern=r"^https://\S+$", description="Where ProkOS gets its tokens.")
    client_id: str = Field(description="Id of the client.")
    client_secret_ref: SecretKeyRef = Field(description="Secret of the client.")
    audience: str = Field("orchestration-api", description="Audience that tokens must have.")


class EngineAuthentication(Model):
    """Who may use the engine's API: exactly one way."""

    basic: EngineUser | None = None
    oidc: EngineOidc | None = None

    @model_validator(mode="after")
    @cel(
        Rule(one_of("basic", "oidc"), "give exactly one of basic and oidc, or leave authentication out for an open API")
    )
    def _one(self) -> Self:
        if (self.basic is None) == (self.oidc is None):
            raise ValueError("give exactly one of basic and oidc, or leave authentication out for an open API")
        return self
