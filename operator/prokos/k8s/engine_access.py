"""How pods reach the engine: environment and mounts, with credentials by reference only. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prokos.kube import Manifest
    from prokos.resources.engine_settings import ExternalEngine, SecretValue

CA_DIRECTORY = "/etc/prokos/engine-ca"


@dataclass(frozen=True)
class PodAccess:
    """What a container needs to reach the engine."""

    environment: list[Manifest]
    volumes: list[Manifest]
    mounts: list[Manifest]
    port: int
    """TCP port of the gateway, which NetworkPolicies open."""


def pod_access(engine: ExternalEngine) -> PodAccess:
    """Environment and mounts from which `prokos.engine.connection.from_environment` makes the connection."""
    environment: list[Manifest] = [_plain("PROKOS_ENGINE_ADDRESS", engine.address)]
    volumes: list[Manifest] = []
    mounts: list[Manifest] = []
    if engine.tls.enabled:
        environment.append(_plain("PROKOS_ENGINE_TLS", "true"))
    if reference := engine.tls.ca_secret_ref:
        environment.append(_plain("PROKOS_ENGINE_CA_FILE", f"{CA_DIRECTORY}/{reference.key}"))
        # Of this key alone: the Secret of a gateway's certificate has its private key, too.
        items = [{"key": reference.key, "path": reference.key}]
        volumes.append({"name": "engine-ca", "secret": {"secretName": reference.name, "items": items}})
        mounts.append({"name": "engine-ca", "mountPath": CA_DIRECTORY, "readOnly": True})
    elif engine.tls.ca_file:
        environment.append(_plain("PROKOS_ENGINE_CA_FILE", engine.tls.ca_file))
    if oauth := engine.oauth:
        environment += [
            _plain("PROKOS_ENGINE_OAUTH_TOKEN_URL", oauth.token_url),
            _plain("PROKOS_ENGINE_OAUTH_CLIENT_ID", oauth.client_id),
            _secret("PROKOS_ENGINE_OAUTH_CLIENT_SECRET", oauth.client_secret),
        ]
        if oauth.audience:
            environment.append(_plain("PROKOS_ENGINE_OAUTH_AUDIENCE", oauth.audience))
        if oauth.scope:
            environment.append(_plain("PROKOS_ENGINE_OAUTH_SCOPE", oauth.scope))
    if basic := engine.basic:
        environment += [
            _plain("PROKOS_ENGINE_USERNAME", basic.username),
            _secret("PROKOS_ENGINE_PASSWORD", basic.password),
        ]
    return PodAccess(environment, volumes, mounts, int(engine.address.rpartition(":")[2]))


def _plain(name: str, value: str) -> Manifest:
    return {"name": name, "value": value}


def _secret(name: str, value: SecretValue) -> dict[str, Any]:
    """A credential. Only a reference works in a cluster; the CRD refuses the others."""
    reference = value.secret_key_ref
    if reference is None:
        raise ValueError(f"{name}: in a cluster a credential must be a secretKeyRef, not env or file")
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": reference.name, "key": reference.key}}}
