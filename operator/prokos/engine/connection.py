"""How to reach an engine: address, TLS and credentials, and the gRPC channel made from them."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from pyzeebe import create_insecure_channel, create_secure_channel

from prokos.engine.errors import AccessDeniedError
from prokos.engine.oauth import token_plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prokos.resources.engine_settings import ExternalEngine, SecretValue

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # A restarted broker must be found again within a beat; gRPC's own ceiling is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Despite its name the time-out of one connection attempt (1.85, measured). On an overloaded machine the engine's
    # answer takes longer than the back-off.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    # The broker fills activation responses up to its own message limit of 4 MB, plus headers.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


@dataclass(frozen=True, slots=True)
class OAuth:
    """OAuth 2 client credentials."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    audience: str | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class Basic:
    """User name and password."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """Everything a client needs to reach an engine.

    Raises:
        AccessDeniedError: There are credentials but no TLS.
    """

    address: str
    tls: bool = False
    ca_file: str | None = None
    oauth: OAuth | None = None
    basic: Basic | None = None

    def __post_init__(self) -> None:
        if (self.oauth or self.basic) and not self.tls:
            raise AccessDeniedError(
                "there are credentials for the engine, but TLS is off (PROKOS_ENGINE_TLS): they would be in the clear"
            )

    def __repr__(self) -> str:
        way = "oauth" if self.oauth else "basic" if self.basic else "no credentials"
        return f"Connection({self.address}, tls={self.tls}, {way})"

    def open_channel(self) -> grpc.aio.Channel:
        """Open a channel; the connection itself is made lazily, by the first command."""
        if not self.tls:
            return create_insecure_channel(self.address, channel_options=CHANNEL_OPTIONS)
        roots = Path(self.ca_file).read_bytes() if self.ca_file else None
        credentials = grpc.ssl_channel_credentials(root_certificates=roots)
        if self.oauth is not None:
            plugin = grpc.metadata_call_credentials(token_plugin(self.oauth, self.ca_file))
            credentials = grpc.composite_channel_credentials(credentials, plugin)
        if self.basic is not None:
            plugin = grpc.metadata_call_credentials(_BasicAuth(self.basic))
            credentials = grpc.composite_channel_credentials(credentials, plugin)
        return create_secure_channel(self.address, channel_options=CHANNEL_OPTIONS, channel_credentials=credentials)

    def to_environment(self) -> dict[str, str]:
        """The variables from which `from_environment` makes this connection again, for child processes."""
        values = {
            "PROKOS_ENGINE_ADDRESS": self.address,
            "PROKOS_ENGINE_TLS": "true" if self.tls else None,
            "PROKOS_ENGINE_CA_FILE": self.ca_file,
        }
        if self.oauth:
            values |= {
                "PROKOS_ENGINE_OAUTH_TOKEN_URL": self.oauth.token_url,
                "PROKOS_ENGINE_OAUTH_CLIENT_ID": self.oauth.client_id,
                "PROKOS_ENGINE_OAUTH_CLIENT_SECRET": self.oauth.client_secret,
                "PROKOS_ENGINE_OAUTH_AUDIENCE": self.oauth.audience,
                "PROKOS_ENGINE_OAUTH_SCOPE": self.oauth.scope,
            }
        if self.basic:
            values |= {
                "PROKOS_ENGINE_USERNAME": self.basic.username,
                "PROKOS_ENGINE_PASSWORD": self.basic.password,
            }
        return {name: value for name, value in values.items() if value is not None}


class _BasicAuth(grpc.AuthMetadataPlugin):  # type: ignore[misc]  # grpc has no types
    """Adds the `authorization` header that Camunda 8.8's gateway reads under basic authentication."""

    def __init__(self, basic: Basic) -> None:
        token = base64.b64encode(f"{basic.username}:{basic.password}".encode()).decode()
        self._metadata = (("authorization", f"Basic {token}"),)

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        callback(self._metadata, None)


def from_environment(environ: Mapping[str, str] = os.environ) -> Connection | None:
    """Read a connection from `PROKOS_ENGINE_*`; None when no address is set."""
    address = environ.get("PROKOS_ENGINE_ADDRESS")
    if not address:
        return None
    oauth = basic = None
    if token_url := environ.get("PROKOS_ENGINE_OAUTH_TOKEN_URL"):
        oauth = OAuth(
            token_url=token_url,
            client_id=environ["PROKOS_ENGINE_OAUTH_CLIENT_ID"],
            client_secret=environ["PROKOS_ENGINE_OAUTH_CLIENT_SECRET"],
            audience=environ.get("PROKOS_ENGINE_OAUTH_AUDIENCE"),
            scope=environ.get("PROKOS_ENGINE_OAUTH_SCOPE"),
        )
    if username := environ.get("PROKOS_ENGINE_USERNAME"):
        basic = Basic(username=username, password=environ.get("PROKOS_ENGINE_PASSWORD", ""))
    tls = environ.get("PROKOS_ENGINE_TLS", "").lower() in {"1", "true", "yes"}
    return Connection(address, tls=tls, ca_file=environ.get("PROKOS_ENGINE_CA_FILE"), oauth=oauth, basic=basic)


REFERENCES = Path("/var/run/prokos/references")
"""Where a pod finds the Secrets that settings refer to: `NAME/KEY`."""


def read_secret(value: SecretValue, environ: Mapping[str, str] = os.environ, mount: Path = REFERENCES) -> str:
    """The value a reference points to.

    Raises:
        AccessDeniedError: The variable is not set, or the file cannot be read.
    """
    if value.env is not None:
        if value.env not in environ:
            raise AccessDeniedError(f"environment variable {value.env} is not set")
        return environ[value.env]
    if value.file is not None:
        path = Path(value.file)
    elif value.secret_key_ref is not None and mount.is_dir():
        path = mount / value.secret_key_ref.name / value.secret_key_ref.key
    else:
        raise AccessDeniedError("secretKeyRef can only be resolved in a cluster; use env or file")
    try:
        return path.read_text().rstrip("\n")
    except OSError as error:
        raise AccessDeniedError(f"secret file {path}: {error.strerror}") from error


def from_resource(engine: ExternalEngine, read: Callable[[SecretValue], str] = read_secret) -> Connection:
    """The connection that `spec.engine.external` of a ProkOS resource describes; `read` resolves its secrets."""
    oauth = basic = None
    if settings := engine.oauth:
        oauth = OAuth(
            token_url=settings.token_url,
            client_id=settings.client_id,
            client_secret=read(settings.client_secret),
            audience=settings.audience,
            scope=settings.scope,
        )
    if engine.basic:
        basic = Basic(engine.basic.username, read(engine.basic.password))
    return Connection(engine.address, tls=engine.tls.enabled, ca_file=engine.tls.ca_file, oauth=oauth, basic=basic)
