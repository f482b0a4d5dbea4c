"""Settings of executors of type `grpc`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from prokos.resources.base import ITEMS_MAX, Model
from prokos.resources.cel import Rule, beyond_cel, cel
from prokos.resources.networks import Network
from prokos.resources.secrets import SecretName

if TYPE_CHECKING:
    from collections.abc import Iterator

GrpcCode = Literal[
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]

MetadataKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-z_.-]+$")]


class GrpcTls(Model):
    """TLS to the server; with client certificate and key, mutual TLS."""

    enabled: bool = True
    ca_secret: SecretName | None = Field(None, description="PEM certificates of the authorities, if not public ones.")
    cert_secret: SecretName | None = Field(None, description="PEM chain of the client's certificate.")
    key_secret: SecretName | None = Field(None, description="PEM key of the client's certificate.")
    server_name: str | None = Field(None, description="Name in the server's certificate, if not the address' host.")

    @model_validator(mode="after")
    @cel(
        Rule("has(self.certSecret) == has(self.keySecret)", "certSecret and keySecret go together"),
        Rule(
            "self.enabled || !(has(self.caSecret) || has(self.certSecret) || has(self.serverName))",
            "caSecret, certSecret and serverName do nothing with enabled: false",
            ".enabled",
        ),
    )
    def _consistent(self) -> Self:
        if (self.cert_secret is None) != (self.key_secret is None):
            raise ValueError("certSecret and keySecret go together")
        if not self.enabled and (self.ca_secret or self.cert_secret or self.server_name):
            raise ValueError("caSecret, certSecret and serverName do nothing with enabled: false")
        return self


class GrpcOutcome(Model):
    """What a status code means for the task."""

    status: GrpcCode
    outcome: Literal["error", "retry", "fail"]
    code: str | None = Field(None, description="BPMN error code, for `error`.")
    message: str | None = Field(None, description="Message in place of the server's.")

    @model_validator(mode="after")
    @cel(Rule("has(self.code) == (self.outcome == 'error')", "code goes with outcome: error, and with nothing else"))
    def _code_with_error(self) -> Self:
        if (self.code is None) == (self.outcome == "error"):
            raise ValueError("code goes with outcome: error, and with nothing else")
        return self


class GrpcSettings(Model):
    """One call of a unary or server-streaming method."""

    address: str = Field(description="Host and port of the server.", pattern=r"^(\[[0-9a-fA-F:.]+\]|[^/\s:\[\]]+):\d+$")
    method: str = Field(description="`package.Service/Method`.", pattern=r"^[A-Za-z_][\w.]*/[A-Za-z_]\w*$")
    descriptor_set: str | None = Field(
        None,
        description="File descriptor set of the service and all it imports, base64 (`protoc --descriptor_set_out "
        "--include_imports`). Without it the server is asked (reflection).",
    )
    tls: GrpcTls = Field(default_factory=GrpcTls)
    metadata: dict[MetadataKey, str] = Field(
        default_factory=dict, max_length=ITEMS_MAX, description="Sent with the call."
    )
    secret_metadata: dict[MetadataKey, SecretName] = Field(
        default_factory=dict, description="Metadata key to the name of the secret that holds its value."
    )
    bearer: SecretName | None = Field(None, description="Secret sent as `authorization: Bearer`.")
    request: str | None = Field(None, description="Input field that is the request message. Default: the whole input.")
    messages: str = Field("messages", description="Variable of the messages of a server-streaming method.")
    max_messages: int = Field(1_000, ge=1, description="More messages of a stream than this fail the task.")
    max_response_bytes: int = Field(1_000_000, ge=1, description="Longest answer, all messages of a stream together.")
    allowed_networks: list[Network] = Field(
        default_factory=list,
        max_length=ITEMS_MAX,
        description="Private networks this executor may call, as CIDR. All others that are private, loopback, "
        "link-local or metadata addresses are refused.",
    )
    outcomes: list[GrpcOutcome] = Field(
        default_factory=list,
        max_length=ITEMS_MAX,
        description="By default UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED and ABORTED are retried, and every "
        "other status fails.",
    )

    def secret_references(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Every mention of a secret, with its path below `grpc`."""
        for field in ("ca_secret", "cert_secret", "key_secret"):
            if (name := getattr(self.tls, field)) is not None:
                yield ("tls", GrpcTls.model_fields[field].alias or field), name
        for key, name in self.secret_metadata.items():
            yield ("secretMetadata", key), name
        if self.bearer is not None:
            yield ("bearer",), self.bearer

    @field_validator("metadata")
    @classmethod
    @cel(
        Rule(
            "!('authorization' in self)", "authorization cannot be set here: use bearer, which takes it from a secret"
        ),
        Rule(
            "self.all(name, !name.startsWith('grpc-') && !name.endsWith('-bin'))",
            "names must not start with grpc-, which is the protocol's, nor end with -bin, which is binary",
        ),
    )
    @beyond_cel("characters that gRPC metadata cannot hold, in `grpc.metadata`")
    def _sendable(cls, metadata: dict[str, str]) -> dict[str, str]:
        for name, value in metadata.items():
            if name == "authorization":
                raise ValueError("metadata authorization cannot be set: use bearer, which takes it from a secret")
            if name.startswith("grpc-") or name.endswith("-bin"):
                raise ValueError(f"metadata {name} cannot be set: grpc- is the protocol's, and -bin is binary")
            if not re.fullmatch(r"[\x20-\x7e]*", value):
                raise ValueError(f"metadata {name} has a character that metadata cannot hold")
        return metadata

    @model_validator(mode="after")
    @cel(
        Rule(
            "self.tls.enabled || !(has(self.bearer) || self.?secretMetadata.orValue({}).size() > 0)",
            "secrets need tls.enabled: true; they would be sent in the clear",
            ".tls",
        )
    )
    def _secrets_need_tls(self) -> Self:
        if (self.bearer or self.secret_metadata) and not self.tls.enabled:
            raise ValueError("secrets need tls.enabled: true; they would be sent in the clear")
        return self
