"""Settings of type http: what survives being written down, and what they refer to."""

from __future__ import annotations

from typing import Any

import pytest

from prokos.processes import check_manifests
from prokos.resources import TaskExecutor
from prokos.resources.http_settings import HttpSettings

FULL: dict[str, Any] = {
    "method": "POST",
    "url": "https://pay.example/orders/{orderId}",
    "query": {"q": "a.b"},
    "headers": {"X-Tenant": "acme", "Accept": ""},
    "body": "order",
    "bodyFormat": "form",
    "idempotency": {"header": "X-Key", "field": "orderId"},
    "auth": {
        "oauth2": {
            "tokenUrl": "https://login.example/token",
            "clientId": "me",
            "clientSecret": "client",
            "scopes": ["a"],
            "parameters": {"audience": "x"},
        }
    },
    "clientCertificate": {"certificateSecret": "cert", "keySecret": "key", "passwordSecret": "password"},
    "caSecret": "ca",
    "allowedNetworks": ["10.0.0.0/8"],
    "timeouts": {"connect": "1s", "read": "2s", "total": "3s"},
    "retry": {"tries": 3, "initial": "1ms", "maximum": "1s"},
    "circuitBreaker": {},
    "rateLimit": {"requestsPerSecond": 0.5},
    "outcomes": [
        {"status": "2xx", "where": {"a": None, "b": 1, "c": True, "d": "x"}, "outcome": "retry", "retryAfter": "1m"},
        {
            "status": "402",
            "outcome": "error",
            "code": "X",
            "codeFrom": "a",
            "messageFrom": "b",
            "variables": {"v": "w"},
        },
        {"status": "404", "outcome": "error", "code": "Y", "variables": {}},
    ],
    "callback": {"secret": "callbacks", "url": "https://x/{token}", "header": "", "field": "url", "timeout": "48h"},
    "filesDirectory": "/srv/files",
    "charset": "latin-1",
}


def executor(**http: Any) -> TaskExecutor:
    spec = {"type": "http", "http": http}
    return TaskExecutor.model_validate({"metadata": {"name": "pay"}, "spec": spec}, by_alias=True, by_name=False)


def test_settings_are_the_same_after_they_were_written_down() -> None:
    """Workers and the registry read documents without what is null: nothing that is set may be null."""
    for settings in (FULL, {"url": "https://x/"}):
        given = executor(**settings)
        written = given.model_dump_json(by_alias=True, exclude_none=True)
        assert TaskExecutor.model_validate_json(written) == given


def test_every_secret_that_is_named_must_be_declared(tmp_path: Any) -> None:
    import yaml

    manifest = tmp_path / "executor.yaml"
    document = {
        "apiVersion": "prokos.io/v1alpha1",
        "kind": "TaskExecutor",
        "metadata": {"name": "pay"},
        "spec": {"type": "http", "accepts": [{"jobType": "pay"}], "http": FULL},
    }
    manifest.write_text(yaml.safe_dump(document))
    problems = [str(problem) for problem in check_manifests([manifest]).problems]
    for path, name in {
        "auth.oauth2.clientSecret": "client",
        "clientCertificate.certificateSecret": "cert",
        "clientCertificate.keySecret": "key",
        "clientCertificate.passwordSecret": "password",
        "caSecret": "ca",
        "callback.secret": "callbacks",
    }.items():
        assert any(f"spec.http.{path}" in problem and f"{name!r}" in problem for problem in problems), (path, problems)


@pytest.mark.parametrize(
    ("settings", "origins"),
    [
        (FULL, ["https://pay.example", "https://login.example"]),
        ({"url": "http://pay.example:8080/x"}, ["http://pay.example:8080"]),
        ({"url": "{+url}"}, []),
        ({"url": "https://{host}/"}, []),
    ],
)
def test_origins_are_what_a_network_policy_must_open(settings: dict[str, Any], origins: list[str]) -> None:
    assert HttpSettings.model_validate(settings).origins == origins
