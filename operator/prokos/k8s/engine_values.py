"""A Helm engine's settings as values of its chart, and its address. Pure.

What the values do is told by the charts' own files (camunda/camunda-platform-helm, 13.12 for Camunda 8.8 and 14.8 for
8.9): `values.schema.json`, `templates/common/constraints.tpl`, `templates/orchestration`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prokos.resources.engine_settings import BasicSettings, ExternalEngine, OAuthSettings, SecretValue, TlsSettings
from prokos.resources.helm_settings import CAMUNDA_CHART, FIRST_SUPPORTED_CHART, OWN_CHART, chart_major
from prokos.resources.secrets import SecretKeyRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.resources.engine_shape import EngineAuthentication, EngineStorage
    from prokos.resources.helm_settings import HelmEngine

Values = dict[str, Any]

GATEWAY_PORT = 26500
"""gRPC port of the charts' gateway Services."""

NAME_LIMIT = 63
"""Where the charts cut names."""

TLS_DIRECTORY = "/usr/local/camunda/tls"
PASSWORD_VARIABLE = "PROKOS_ENGINE_USER_PASSWORD"  # noqa: S105 - the name of a variable

JAVA_OPTIONS = (
    "-XX:+HeapDumpOnOutOfMemoryError -XX:HeapDumpPath=/usr/local/camunda/data "
    "-XX:ErrorFile=/usr/local/camunda/data/camunda_error%p.log -XX:+ExitOnOutOfMemoryError"
)
"""What the chart gives the JVM, which setting the heap would otherwise drop."""

H2_URL = "jdbc:h2:file:/usr/local/camunda/data/h2"
"""On the broker's volume, so that it survives the pod."""


# --- values --------------------------------------------------------------------------------------------------


def build_values(settings: HelmEngine) -> Values:
    """The values to install: those made from the settings, and the user's own over them."""
    if settings.chart_name == CAMUNDA_CHART:
        built = _camunda(settings)
    elif settings.chart_name == OWN_CHART:
        built = _own(settings)
    else:
        built = {}
    return merge_values(built, settings.values)


def merge_values(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """Lay values over others as Helm does, so null removes also what the chart itself says.

    Other than in Helm, lists whose items Kubernetes tells apart (`env`, `extraVolumes`, `extraVolumeMounts`) are merged
    item by item: one more variable must not cost those that are there.
    """
    merged = dict(base)
    for key, value in over.items():
        before = merged.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            merged[key] = merge_values(before, value)
        elif isinstance(value, list) and isinstance(before, list) and (identity := _identity([*before, *value])):
            merged[key] = list({item[identity]: item for item in [*before, *value]}.values())
        else:
            merged[key] = value
    return merged


def _identity(items: list[Any]) -> str | None:
    """The field by which Kubernetes tells items of such a list apart."""
    for field in ("mountPath", "name"):
        if all(isinstance(item, dict) and field in item for item in items):
            return field
    return None


def _camunda(settings: HelmEngine) -> Values:
    """Values of `camunda-platform`, 13.x and 14.x: the engine alone."""
    orchestration: Values = {
        # The schema has strings here.
        "clusterSize": str(settings.brokers),
        "partitionCount": str(settings.effective_partitions),
        "replicationFactor": str(settings.effective_replication),
        # All that Pod Security `restricted` asks and the chart does not say itself.
        "containerSecurityContext": {"capabilities": {"drop": ["ALL"]}},
    }
    if settings.brokers == 1:
        # The chart lets no two brokers of a namespace share a node, which one broker has no use for.
        orchestration["affinity"] = {"podAntiAffinity": None}
    else:
        orchestration["podDisruptionBudget"] = {"enabled": True, "maxUnavailable": 1}
    if settings.volume.size:
        orchestration["pvcSize"] = settings.volume.size
    if settings.volume.storage_class_name:
        orchestration["pvcStorageClassName"] = settings.volume.storage_class_name
    if resources := settings.resources.model_dump(exclude_defaults=True):
        orchestration["resources"] = resources
    if settings.heap:
        orchestration["javaOpts"] = f"{JAVA_OPTIONS} -Xms{settings.heap} -Xmx{settings.heap}"
    values: Values = {
        "global": {"elasticsearch": {"enabled": False}, "opensearch": {"enabled": False}},
        "elasticsearch": {"enabled": False},
        "orchestration": orchestration,
        **{part: {"enabled": False} for part in ("connectors", "identity", "optimize", "console", "webModeler")},
    }
    if reference := settings.license_secret_ref:
        values["global"]["license"] = {"secret": _existing(reference)}
    major = chart_major(settings.effective_version or "") or FIRST_SUPPORTED_CHART
    for part in (
        _storage(settings.storage),
        _security(settings.authentication, major),
        _tls(settings.tls_secret),
    ):
        values = merge_values(values, part)
    return values


def _storage(storage: EngineStorage) -> Values:
    if storage.type == "none":
        return {"global": {"noSecondaryStorage": True}}
    if storage.password_secret_ref is None:
        # The broker alone opens this file, on its own volume: the password protects nothing, but there has to be one.
        database: Values = {"url": H2_URL, "username": "sa", "secret": {"inlineSecret": "sa"}}
    else:
        database = {
            "url": storage.url,
            "username": storage.username,
            "secret": _existing(storage.password_secret_ref),
        }
    return {
        "orchestration": {
            "exporters": {"camunda": {"enabled": False}, "rdbms": {"enabled": True}},
            "data": {"secondaryStorage": {"type": "rdbms", "rdbms": database}},
        }
    }


def _security(authentication: EngineAuthentication | None, major: int) -> Values:
    env: list[Values] = []
    roles: Values | None = None
    initial: Values = {}
    if authentication is None:
        method: Values = {"method": "basic", "unprotectedApi": True}
        if major == FIRST_SUPPORTED_CHART:
            # 13.x refuses `basic` without storage, and Camunda knows no `none`: so the chart is told the one and
            # Camunda the other, without the profile whose configuration asks for the users' storage.
            method["method"] = "none"
            env = [
                {"name": "CAMUNDA_SECURITY_AUTHENTICATION_METHOD", "value": "basic"},
                {"name": "SPRING_PROFILES_ACTIVE", "value": "broker"},
            ]
    elif user := authentication.basic:
        method = {"method": "basic", "unprotectedApi": False}
        roles = {"users": [user.username], "clients": []}
        initial = {
            "users": [
                {
                    "username": user.username,
                    # Resolved by the application, so that the value is in no ConfigMap.
                    "password": f"${{{PASSWORD_VARIABLE}}}",
                    "name": "ProkOS",
                    "email": f"{user.username}@prokos.invalid",
                }
            ]
        }
        env = [{"name": PASSWORD_VARIABLE, "valueFrom": {"secretKeyRef": user.password_secret_ref.model_dump()}}]
    else:
        oidc = authentication.oidc
        assert oidc is not None  # noqa: S101 - the model has exactly one of both
        method = {
            "method": "oidc",
            "unprotectedApi": False,
            "oidc": {
                "issuer": oidc.issuer,
                "clientId": oidc.client_id,
                "audience": oidc.audience,
                "secret": _existing(oidc.client_secret_ref),
            },
        }
        roles = {"users": [], "clients": [oidc.client_id]}
    security: Values = {"authentication": method, "authorizations": {"enabled": authentication is not None}}
    if roles is not None:
        # Camunda's own defaults are users with known passwords.
        initial["defaultRoles"] = {"admin": roles, "connectors": {"users": [], "clients": []}}
        security["initialization"] = initial
    return {"orchestration": {"security": security, **({"env": env} if env else {})}}


def _tls(secret: str | None) -> Values:
    """TLS at the gateway. The names of 8.6, which 8.8 and 8.9 still read."""
    if secret is None:
        return {}
    prefix = "ZEEBE_BROKER_GATEWAY_SECURITY"
    return {
        "orchestration": {
            "env": [
                {"name": f"{prefix}_ENABLED", "value": "true"},
                {"name": f"{prefix}_CERTIFICATECHAINPATH", "value": f"{TLS_DIRECTORY}/tls.crt"},
                {"name": f"{prefix}_PRIVATEKEYPATH", "value": f"{TLS_DIRECTORY}/tls.key"},
            ],
            "extraVolumes": [{"name": "gateway-tls", "secret": {"secretName": secret, "defaultMode": 0o440}}],
            "extraVolumeMounts": [{"name": "gateway-tls", "mountPath": TLS_DIRECTORY, "readOnly": True}],
        }
    }


def _existing(reference: SecretKeyRef) -> Values:
    """A Secret as both charts name one."""
    return {"existingSecret": reference.name, "existingSecretKey": reference.key}


def _own(settings: HelmEngine) -> Values:
    """Values of `camunda-engine`, in the words of its values.yaml; what is not said is the chart's default."""
    values: Values = {"heap": settings.heap, "resources": settings.resources.model_dump(exclude_defaults=True)}
    values["persistence"] = {"size": settings.volume.size, "storageClassName": settings.volume.storage_class_name}
    if reference := settings.license_secret_ref:
        values["license"] = _existing(reference)
    if settings.tls_secret:
        values["tls"] = {"existingSecret": settings.tls_secret}
    values["persistence"] = {key: value for key, value in values["persistence"].items() if value}
    return {key: value for key, value in values.items() if value}


FIXED = {
    "orchestration.clusterSize": "brokers",
    "orchestration.partitionCount": "partitions",
    "orchestration.replicationFactor": "replicationFactor",
    "orchestration.pvcSize": "volume.size",
    "orchestration.pvcStorageClassName": "volume.storageClassName",
    "persistence.size": "volume.size",
    "persistence.storageClassName": "volume.storageClassName",
}
"""Values that cannot change under an engine that has data, and the settings they come from.

Kubernetes refuses another volume; Camunda moves partitions only by its own cluster API, and never changes their number.
"""


def fixed_change(current: Values, wanted: Values) -> str | None:
    """What of `wanted` a running engine could not become, as one sentence; None if it can."""
    for path, field in FIXED.items():
        before, after = _value_at(current, path), _value_at(wanted, path)
        if before is not None and after is not None and str(before) != str(after):
            return f"the engine runs with {path} {before}, which cannot become {after}; set {field} to {before}"
    return None


def _value_at(values: Values, path: str) -> Any:
    found: Any = values
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found or None


# --- address -------------------------------------------------------------------------------------------------


def gateway_address(settings: HelmEngine, release: str, namespace: str, values: Values) -> str:
    """Host and port of the release's gateway Service, by the charts' rules for names."""
    if settings.address is not None:
        return settings.address
    part = values.get("orchestration") or {}
    port = (part.get("service") or {}).get("grpcPort") or GATEWAY_PORT
    infix = part.get("nameOverride") or "zeebe"
    base = part.get("fullnameOverride") or (release if infix in release else f"{release}-{infix}")
    name = base[:NAME_LIMIT].removesuffix("-")
    return f"{name}-gateway.{namespace}.svc:{port}"


def engine_connection(settings: HelmEngine, release: str, namespace: str, values: Values) -> ExternalEngine:
    """How ProkOS reaches the release's engine, credentials by reference."""
    tls = TlsSettings()
    if settings.tls_secret is not None:
        tls = TlsSettings(enabled=True, ca_secret_ref=SecretKeyRef(name=settings.tls_secret, key="ca.crt"))
    basic = oauth = None
    if settings.authentication and (user := settings.authentication.basic):
        basic = BasicSettings(username=user.username, password=SecretValue(secret_key_ref=user.password_secret_ref))
    if settings.authentication and (oidc := settings.authentication.oidc):
        oauth = OAuthSettings(
            token_url=oidc.token_url,
            client_id=oidc.client_id,
            client_secret=SecretValue(secret_key_ref=oidc.client_secret_ref),
            audience=oidc.audience,
        )
    address = gateway_address(settings, release, namespace, values)
    return ExternalEngine(address=address, tls=tls, oauth=oauth, basic=basic)
