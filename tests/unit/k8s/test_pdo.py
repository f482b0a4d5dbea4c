"""PDO and router as objects."""

from __future__ import annotations

import pytest

from prokos.k8s.engine_access import pod_access
from prokos.k8s.pdo import build_pdo, build_router
from prokos.resources import ProkOSSpec
from prokos.resources.engine_settings import ExternalEngine
from unit.k8s.manifests import ENGINE, SYSTEM

LLM = {"mode": "llm", "model": "openai/x", "apiKey": {"secretKeyRef": {"name": "openai", "key": "key"}}}


def built(build=build_pdo, engine=ENGINE, **spec):
    objects = build(SYSTEM, ProkOSSpec.model_validate(spec), "prokos/system:1", engine, pod_access(engine))
    return {manifest["kind"]: manifest for manifest in objects}


def container(objects):
    (found,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    return found


def annotations(**spec):
    return built(**spec)["Deployment"]["spec"]["template"]["metadata"]["annotations"]


def test_may_read_the_registry_and_keep_routes_and_no_more():
    rules = built()["Role"]["rules"]
    granted = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert granted == {
        *(("configmaps", verb) for verb in ("get", "list", "watch")),
        *(("taskroutes", verb) for verb in ("get", "list", "watch", "create", "update")),
    }


def test_the_router_may_only_read():
    rules = built(build_router, router=LLM)["Role"]["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}


def test_without_a_model_there_is_no_router():
    assert built(build_router) == {}


def test_only_the_router_has_the_models_key():
    router = built(build_router, router=LLM)
    assert "openai" in str(router["Deployment"])
    assert "openai" not in str(built(router=LLM))


def test_a_change_of_its_settings_replaces_it():
    assert annotations(pdo={"window": 9}) != annotations()
    assert annotations(executorDefaults={"pod": {"image": "x"}}) == annotations()


def test_replicas_are_protected_from_being_evicted_together():
    assert "PodDisruptionBudget" not in built()
    budget = built(pdo={"replicas": 3})["PodDisruptionBudget"]
    assert budget["spec"]["maxUnavailable"] == 1


def test_credentials_are_references():
    engine = ExternalEngine.model_validate(
        {
            "address": "zeebe.example.com:443",
            "tls": {"enabled": True, "caSecretRef": {"name": "ca", "key": "ca.crt"}},
            "oauth": {
                "tokenUrl": "https://login.example.com/token",
                "clientId": "prokos",
                "clientSecret": {"secretKeyRef": {"name": "camunda", "key": "secret"}},
            },
        }
    )
    pod = container(built(engine=engine))
    environment = {entry["name"]: entry for entry in pod["env"]}
    assert environment["PROKOS_ENGINE_OAUTH_CLIENT_SECRET"]["valueFrom"] == {
        "secretKeyRef": {"name": "camunda", "key": "secret"}
    }
    assert environment["PROKOS_ENGINE_CA_FILE"]["value"] == "/etc/prokos/engine-ca/ca.crt"
    assert {"name": "engine-ca", "mountPath": "/etc/prokos/engine-ca", "readOnly": True} in pod["volumeMounts"]


def test_of_a_secret_pods_get_the_key_that_is_named_alone():
    """The Secret of the gateway's certificate has its private key beside the authority."""
    tls = {"enabled": True, "caSecretRef": {"name": "engine-tls", "key": "ca.crt"}}
    engine = ExternalEngine.model_validate({"address": "zeebe:26500", "tls": tls})
    (volume,) = pod_access(engine).volumes
    assert volume["secret"] == {"secretName": "engine-tls", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    router = built(build_router, router=LLM)["Deployment"]["spec"]["template"]["spec"]["volumes"]
    (key,) = [volume["secret"] for volume in router if volume["name"] == "model-key"]
    assert (key["secretName"], key["items"]) == ("openai", [{"key": "key", "path": "key"}])


def test_a_credential_from_the_environment_is_refused():
    engine = ExternalEngine.model_validate(
        {"address": "a:1", "tls": {"enabled": True}, "basic": {"username": "u", "password": {"env": "PASSWORD"}}}
    )
    with pytest.raises(ValueError, match="secretKeyRef"):
        pod_access(engine)
