"""Right resources, what they are made of, and ways to change them; `wrong_samples` has the wrong ones."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from prokos.resources.manifests import KINDS

ROOT = Path(__file__).parents[1]

Document = dict[str, Any]


def resource(kind: str, name: str = "sample", /, **spec: Any) -> Document:
    return {"apiVersion": "prokos.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


SCRIPT = {"language": "shell", "source": "true"}
HTTP = {"url": "https://pay.example/"}
GRPC = {"address": "pay.example:443", "method": "pay.v1.Pay/Charge"}
SQL = {"urlSecret": "url", "statement": "SELECT 1"}
SECRET = {"name": "s", "key": "k"}
AUTH = {"bearer": "token"}
CALLBACK = {"secret": "token"}


def executor(**spec: Any) -> Document:
    return resource("TaskExecutor", **{"type": "script", "script": SCRIPT, **spec})


def script(**settings: Any) -> Document:
    return resource("TaskExecutor", type="script", script={**SCRIPT, **settings})


def http(**settings: Any) -> Document:
    return resource("TaskExecutor", type="http", http={**HTTP, **settings})


def grpc(**settings: Any) -> Document:
    return resource("TaskExecutor", type="grpc", grpc={**GRPC, **settings})


def sql(**settings: Any) -> Document:
    return resource("TaskExecutor", type="sql", sql={**SQL, **settings})


def helm(**settings: Any) -> Document:
    return resource("ProkOS", engine={"helm": settings})


def external(**settings: Any) -> Document:
    return resource("ProkOS", engine={"external": {"address": "engine:26500", **settings}})


def changed(document: Document, **spec: Any) -> Document:
    return {**copy.deepcopy(document), "spec": {**document["spec"], **spec}}


def without(document: Document, field: str) -> Document:
    return {**document, "spec": {name: value for name, value in document["spec"].items() if name != field}}


PROCESS = resource("ProcessDefinition", bpmn="<definitions/>")
ROUTE = resource("TaskRoute", process="order", element="Ship", executor="parcels")
OIDC = {
    "issuer": "https://login.example/",
    "tokenUrl": "https://login.example/token",
    "clientId": "prokos",
    "clientSecretRef": SECRET,
}
POSTGRESQL = {
    "type": "postgresql",
    "url": "jdbc:postgresql://db/engine",
    "username": "engine",
    "passwordSecretRef": SECRET,
}
OAUTH = {"tokenUrl": "https://login.example/", "clientId": "prokos", "clientSecret": {"secretKeyRef": SECRET}}
TLS = {"enabled": True}

VALID: dict[str, Document] = {
    "smallest system": {"apiVersion": "prokos.io/v1alpha1", "kind": "ProkOS", "metadata": {"name": "sample"}},
    "smallest executor": executor(),
    "smallest process": PROCESS,
    "smallest route": ROUTE,
    "process of a ConfigMap": resource("ProcessDefinition", configMapRef={"name": "models", "key": "order.bpmn"}),
    "system with every setting": resource(
        "ProkOS",
        engine={
            "helm": {
                "version": "14.8.4",
                "brokers": 3,
                "partitions": 6,
                "replicationFactor": 3,
                "storage": POSTGRESQL,
                "volume": {"size": "10Gi"},
                "authentication": {"oidc": OIDC},
                "tlsSecret": "tls",
                "resources": {"limits": {"memory": "2Gi", "cpu": "1.5"}},
                "values": {"orchestration": {"logLevel": "warn", "extra": None}},
                "timeout": "20m",
                "deletionPolicy": "Delete",
            }
        },
        pdo={"shards": 64, "beatInterval": "100ms", "lease": "1s", "include": ["a", "b"], "replicas": 0},
        router={"mode": "llm", "model": "m", "apiKey": {"secretKeyRef": SECRET}, "minConfidence": 1},
        executorDefaults={"pod": {"tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 3}]}},
    ),
    "chart that is not known": helm(chart="oci://charts.example/engine", address="engine:26500", brokers=1),
    "chart of a path": helm(chart="/charts/camunda-engine-0.1.0.tgz"),
    "engine elsewhere": external(tls={"enabled": True, "caSecretRef": SECRET}, oauth=OAUTH),
    "executor with every setting": executor(
        accepts=[{"headers": {"a": "b"}}, {"jobType": "", "process": "order"}],
        inputSchema={"type": "object", "properties": {"größe": {"const": 1}}},
        inputs=[{"source": "=a", "target": "größe.b_1"}],
        backoff={"initial": "1m30s", "maximum": "1.5h", "multiplier": 1, "jitter": 0},
        timeout="1h0m0.5s",
        replicas=0,
        pod={"resources": {"requests": {"cpu": "100m"}}, "labels": {"a": "b"}, "nodeSelector": {"disk": "fast"}},
        network={
            "egress": [
                {"cidr": "10.0.0.0/8", "ports": [{"port": 5432}]},
                {"cidr": "2001:db8::/32", "ports": [{"port": 53, "protocol": "UDP"}]},
                {"namespace": "data", "pods": {"app": "db"}, "ports": [{"port": 1}]},
                {"pods": {"app": "db"}, "ports": [{"port": 65535}]},
            ],
            "policy": "None",
        },
        secrets=[{"name": "token", "secretKeyRef": SECRET}, {"name": "other", "file": "/run/other"}],
    ),
    "command": resource("TaskExecutor", type="script", script={"command": ["true"], "env": {"A": "b"}}),
    "call with every setting": http(
        method="POST",
        url="https://pay.example/{id}/x{?q,r}",
        headers={"X-A": "b"},
        auth={"oauth2": {"tokenUrl": "https://login.example/token?x", "clientId": "c", "clientSecret": "token"}},
        clientCertificate={"certificateSecret": "c", "keySecret": "k"},
        allowedNetworks=["127.0.0.0/8", "::1/128"],
        retry={"tries": 3, "initial": "5s", "maximum": "5s"},
        rateLimit={"requestsPerSecond": 0.1},
        circuitBreaker={},
        outcomes=[
            {"status": "402", "where": {"a.b": True}, "outcome": "error", "code": "C", "variables": {}},
            {"status": "5xx", "outcome": "retry", "retryAfter": "0", "message": "later"},
            {"status": "202", "outcome": "callback"},
        ],
        callback={"secret": "token", "header": None, "field": "replyTo", "timeout": "8760h"},
    ),
    "pages": http(url="{+base}/orders", pagination={"page": {"parameter": "p", "first": 0}}, maxRedirects=20),
    "key of any header": http(auth={"apiKey": {"header": "AUTHORIZATION", "secret": "token"}}),
    "method": grpc(bearer="token", metadata={"a-b_c.1": "x"}, outcomes=[{"status": "ABORTED", "outcome": "retry"}]),
    "statements": resource(
        "TaskExecutor",
        type="sql",
        sql={
            "url": "postgresql+psycopg://db/orders",
            "statements": [
                {"name": "a", "statement": "SELECT :x", "expect": {"rows": 0}},
                {"name": "b", "statement": "SELECT :y"},
            ],
            "types": {"x": "integer"},
            "tls": {"caSecret": "ca"},
            "errors": [{"errno": 1, "code": "C"}],
        },
    ),
    "container": resource("TaskExecutor", type="container", container={"image": "i", "env": {"A": "b"}}),
    "class": resource("TaskExecutor", type="python", python={"executor": "a.b:C", "settings": {"a": [1, None]}}),
}


def examples() -> dict[str, Document]:
    """Every resource of the examples and of the documentation, by where it is."""
    found = {}
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "examples").rglob("*.yaml"))}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for number, block in enumerate(page.read_text().split("\n```yaml\n")[1:]):
            texts[f"{page.relative_to(ROOT)}-{number}"] = block.partition("\n```")[0]
    for name, text in texts.items():
        for number, document in enumerate(yaml.safe_load_all(text)):
            if isinstance(document, dict) and document.get("kind") in KINDS:
                found[f"{name}-{number}"] = document
    return found


# --- changed samples -------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    *(0, 1, -1, 65536, 0.5, True, "", "a", "A b", "=x", "5s", "5", "0", "1h1m", "GET", "402", "10.0.0.0/8"),
    *([], {}, ["a"], [1], {"a": "b"}, {"name": "a"}, [{}], "x" * 300),
]
"""What may stand anywhere, and is right in few places."""


def places() -> list[tuple[Document, tuple[str | int, ...]]]:
    """Every place below `spec` of every right resource."""
    return [(document, path) for document in VALID.values() for path in _paths(document.get("spec", {}))]


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, one in inner for place in _paths(one, (*path, key))]


def replaced(document: Document, path: tuple[str | int, ...], value: Any) -> Document:
    """A resource with another value at a place below `spec`."""
    made = copy.deepcopy(document)
    holder: Any = made["spec"]
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return made


def model_errors(document: Document) -> list[ErrorDetails]:
    """What the models say of a resource."""
    try:
        KINDS[document["kind"]].model_validate(document, by_alias=True, by_name=False, strict=True)
    except ValidationError as error:
        return error.errors()
    return []
