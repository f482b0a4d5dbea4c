"""Secrets the operator itself needs, to reach the engine, and those it looks at to say that they are missing."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from prokos.engine.connection import Connection, from_resource
from prokos.engine.errors import AccessDeniedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prokos.kube import KubeClient
    from prokos.resources.engine_settings import ExternalEngine, SecretValue
    from prokos.resources.secrets import SecretKeyRef


class SecretReader:
    """Reads keys of the Secrets of one namespace."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def missing(self, references: Iterable[SecretKeyRef]) -> list[str]:
        """What is not there, each with what to do."""
        found = []
        for name, key in sorted({(one.name, one.key) for one in references}):
            data = await self._data(name)
            if data is None:
                found.append(f"there is no Secret {name!r} in the namespace; create it with the key {key!r}")
            elif key not in data:
                found.append(f"Secret {name!r} has no key {key!r}; add it")
        return found

    async def value(self, reference: SecretKeyRef) -> str:
        """One value.

        Raises:
            AccessDeniedError: It is not there, or no text.
        """
        if missing := await self.missing([reference]):
            raise AccessDeniedError(missing[0])
        data = await self._data(reference.name) or {}
        try:
            return base64.b64decode(data[reference.key]).decode().rstrip("\n")
        except UnicodeDecodeError:
            # Not from the error: it holds the value.
            raise AccessDeniedError(
                f"the key {reference.key!r} of Secret {reference.name!r} is no UTF-8 text"
            ) from None

    async def _data(self, name: str) -> dict[str, str] | None:
        secret = await self._client.get("v1", "Secret", self._namespace, name)
        return None if secret is None else secret.get("data") or {}

    async def connection(self, engine: ExternalEngine) -> Connection:
        """The operator's own connection to an engine.

        Raises:
            AccessDeniedError: A credential is not there, or no text.
        """
        values: dict[SecretKeyRef, str] = {}
        for value in credentials(engine):
            if value.secret_key_ref is None:
                raise AccessDeniedError("in a cluster a credential must be a secretKeyRef, not env or file")
            values[value.secret_key_ref] = await self.value(value.secret_key_ref)

        def read(value: SecretValue) -> str:
            assert value.secret_key_ref is not None  # noqa: S101 - checked above
            return values[value.secret_key_ref]

        ca_file = engine.tls.ca_file
        if engine.tls.ca_secret_ref is not None:
            ca_file = _as_file(await self.value(engine.tls.ca_secret_ref))
        tls = engine.tls.model_copy(update={"ca_file": ca_file, "ca_secret_ref": None})
        return from_resource(engine.model_copy(update={"tls": tls}), read)


def credentials(engine: ExternalEngine) -> list[SecretValue]:
    """The secrets that reaching an engine takes, besides its authority's certificate."""
    found = [engine.oauth.client_secret] if engine.oauth else []
    return found + ([engine.basic.password] if engine.basic else [])


def _as_file(text: str) -> str:
    """A file with this content; the same content is the same file, so that connections compare equal."""
    import hashlib

    path = Path(tempfile.gettempdir()) / f"prokos-ca-{hashlib.sha256(text.encode()).hexdigest()[:16]}.pem"
    path.write_text(text)
    return str(path)
