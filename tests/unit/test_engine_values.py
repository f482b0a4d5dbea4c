"""Settings of a Helm engine as values of the charts, and which settings are refused."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from prokos.engine.embedded_settings import EmbeddedSettings, EnginePorts, build_environment
from prokos.k8s.chart import CAMUNDA_REPOSITORY, desired_digest, find_chart
from prokos.k8s.engine_values import build_values, engine_connection, fixed_change, gateway_address, merge_values
from prokos.k8s.rollout import read_objects
from prokos.resources.helm_settings import HelmEngine

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "helm"
SCHEMAS = "PROKOS_CAMUNDA_SCHEMAS"

VERSIONS = {"8.8": "13", "8.9": "14"}
STORAGES: dict[str, dict[str, Any]] = {
    "none": {},
    "h2": {"type": "h2"},
    "postgresql": {
        "type": "postgresql",
        "url": "jdbc:postgresql://db.data.svc:5432/camunda",
        "username": "camunda",
        "passwordSecretRef": {"name": "engine-db", "key": "password"},
    },
}
AUTHENTICATIONS: dict[str, dict[str, Any] | None] = {
    "open": None,
    "basic": {"basic": {"username": "prokos", "passwordSecretRef": {"name": "engine-user", "key": "password"}}},
    "oidc": {
        "oidc": {
            "issuer": "https://id.example.com/realms/camunda",
            "tokenUrl": "https://id.example.com/realms/camunda/protocol/openid-connect/token",
            "clientId": "engine",
            "clientSecretRef": {"name": "engine-client", "key": "secret"},
        }
    },
}
MATRIX = list(itertools.product(VERSIONS, STORAGES, AUTHENTICATIONS, (1, 3)))

REFUSED = {
    "chart 13 (Camunda 8.8) has no relational storage": lambda camunda, storage, _, __: (
        camunda == "8.8" and storage != "none"
    ),
    "authentication.basic needs a storage": lambda _, storage, authentication, __: (
        authentication == "basic" and storage == "none"
    ),
    "storage 'h2' lives in the broker": lambda _, storage, __, brokers: storage == "h2" and brokers > 1,
}
"""What Camunda cannot do, and how a resource that asks for it is refused."""


def settings(**fields: Any) -> HelmEngine:
    return HelmEngine.model_validate(fields, by_alias=True, by_name=False)


def cell(camunda: str, storage: str, authentication: str, brokers: int) -> HelmEngine:
    access = {"authentication": AUTHENTICATIONS[authentication], "tlsSecret": "engine-tls"}
    return settings(
        version=VERSIONS[camunda],
        storage=STORAGES[storage],
        brokers=brokers,
        volume={"size": "10Gi", "storageClassName": "fast"},
        resources={"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}},
        heap="1g",
        licenseSecretRef={"name": "camunda", "key": "license"},
        **(access if authentication != "open" else {}),
    )


def is_possible(*coordinates: Any) -> bool:
    return not any(applies(*coordinates) for applies in REFUSED.values())


POSSIBLE = [coordinates for coordinates in MATRIX if is_possible(*coordinates)]
IMPOSSIBLE = [coordinates for coordinates in MATRIX if not is_possible(*coordinates)]


# --- the charts' own schemas ---------------------------------------------------------------------------------


def schema_of(camunda: str) -> dict[str, Any]:
    """The chart's schema: from the directory in the variable, or from one beside this repository."""
    places = [Path(os.environ[SCHEMAS])] if SCHEMAS in os.environ else sorted(ROOT.parent.glob("*/data"))
    for place in places:
        file = place / f"camunda-platform-{camunda}" / "values.schema.json"
        if file.exists():
            found: dict[str, Any] = json.loads(file.read_text())
            return found
    pytest.skip(f"the chart's values.schema.json is not there; {SCHEMAS} may name a directory with it")


def without_nulls(values: Any) -> Any:
    """What a schema sees: Helm removes what is null before it asks."""
    if isinstance(values, dict):
        return {key: without_nulls(value) for key, value in values.items() if value is not None}
    return values


def unknown_keys(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> list[str]:
    """Keys that a schema does not describe: it lets them pass, and the chart does nothing with them."""
    known = schema.get("properties")
    if known is None or schema.get("additionalProperties") is True:
        return []
    unknown = [f"{path}{key}" for key in values if key not in known]
    for key, value in values.items():
        if isinstance(value, dict) and key in known:
            unknown += unknown_keys(value, known[key], f"{path}{key}.")
    return unknown


@pytest.mark.parametrize(("camunda", "storage", "authentication", "brokers"), POSSIBLE)
def test_values_satisfy_the_schema_of_the_chart(camunda: str, storage: str, authentication: str, brokers: int) -> None:
    schema = schema_of(camunda)
    values = without_nulls(build_values(cell(camunda, storage, authentication, brokers)))
    problems = [
        f"{'.'.join(map(str, error.instance_path))}: {error.message}"
        for error in jsonschema_rs.validator_for(schema).iter_errors(values)
    ]
    assert problems == []


@pytest.mark.parametrize(("camunda", "storage", "authentication", "brokers"), POSSIBLE)
def test_values_are_all_known_to_the_chart(camunda: str, storage: str, authentication: str, brokers: int) -> None:
    values = without_nulls(build_values(cell(camunda, storage, authentication, brokers)))
    # The schema lists the defaults of the security context, whatever else Kubernetes has goes into the pod as it is.
    assert unknown_keys(values, schema_of(camunda)) == ["orchestration.containerSecurityContext.capabilities"]


def test_the_schema_would_refuse_a_wrong_value() -> None:
    schema = schema_of("8.9")
    wrong = build_values(settings(values={"orchestration": {"clusterSize": 1}}))
    assert not jsonschema_rs.validator_for(schema).is_valid(without_nulls(wrong))


@pytest.mark.parametrize(("camunda", "storage", "authentication", "brokers"), IMPOSSIBLE)
def test_refuses_what_camunda_cannot_do(camunda: str, storage: str, authentication: str, brokers: int) -> None:
    reasons = [reason for reason, applies in REFUSED.items() if applies(camunda, storage, authentication, brokers)]
    with pytest.raises(ValidationError) as refused:
        cell(camunda, storage, authentication, brokers)
    assert any(reason in str(refused.value) for reason in reasons)


def test_both_versions_have_a_cell_for_each_way_of_authentication() -> None:
    assert {(camunda, authentication) for camunda, _, authentication, _ in POSSIBLE} >= {
        ("8.8", "open"),
        ("8.8", "oidc"),
        ("8.9", "open"),
        ("8.9", "basic"),
        ("8.9", "oidc"),
    }


# --- what the values say -------------------------------------------------------------------------------------


def test_default_is_one_broker_of_8_9_and_nothing_else() -> None:
    values = build_values(settings())
    assert values["global"] == {
        "elasticsearch": {"enabled": False},
        "opensearch": {"enabled": False},
        "noSecondaryStorage": True,
    }
    assert all(
        values[part] == {"enabled": False}
        for part in ("connectors", "identity", "optimize", "console", "webModeler", "elasticsearch")
    )
    assert values["orchestration"] == {
        "clusterSize": "1",
        "partitionCount": "1",
        "replicationFactor": "1",
        "affinity": {"podAntiAffinity": None},
        "containerSecurityContext": {"capabilities": {"drop": ["ALL"]}},
        "security": {
            "authentication": {"method": "basic", "unprotectedApi": True},
            "authorizations": {"enabled": False},
        },
    }


def test_three_brokers_share_the_partitions_and_are_not_drained_at_once() -> None:
    orchestration = build_values(settings(brokers=3, partitions=6))["orchestration"]
    assert (orchestration["clusterSize"], orchestration["partitionCount"], orchestration["replicationFactor"]) == (
        "3",
        "6",
        "3",
    )
    assert orchestration["podDisruptionBudget"] == {"enabled": True, "maxUnavailable": 1}
    assert "affinity" not in orchestration


def test_two_brokers_do_not_replicate_by_default() -> None:
    assert settings(brokers=2).effective_replication == 1
    assert settings(brokers=5).effective_replication == 3


def test_8_8_without_storage_is_told_its_method_past_the_chart() -> None:
    orchestration = build_values(settings(version="13.12.7"))["orchestration"]
    assert orchestration["security"]["authentication"] == {"method": "none", "unprotectedApi": True}
    assert {item["name"]: item["value"] for item in orchestration["env"]} == {
        "CAMUNDA_SECURITY_AUTHENTICATION_METHOD": "basic",
        "SPRING_PROFILES_ACTIVE": "broker",
    }


def test_postgresql_is_named_by_reference() -> None:
    orchestration = build_values(cell("8.9", "postgresql", "open", 3))["orchestration"]
    assert orchestration["exporters"] == {"camunda": {"enabled": False}, "rdbms": {"enabled": True}}
    assert orchestration["data"]["secondaryStorage"] == {
        "type": "rdbms",
        "rdbms": {
            "url": "jdbc:postgresql://db.data.svc:5432/camunda",
            "username": "camunda",
            "secret": {"existingSecret": "engine-db", "existingSecretKey": "password"},
        },
    }


def test_basic_has_one_user_whose_password_is_in_no_config_map() -> None:
    orchestration = build_values(cell("8.9", "h2", "basic", 1))["orchestration"]
    security = orchestration["security"]
    assert security["authentication"] == {"method": "basic", "unprotectedApi": False}
    assert security["authorizations"] == {"enabled": True}
    (user,) = security["initialization"]["users"]
    assert (user["username"], user["password"]) == ("prokos", "${PROKOS_ENGINE_USER_PASSWORD}")
    assert security["initialization"]["defaultRoles"] == {
        "admin": {"users": ["prokos"], "clients": []},
        "connectors": {"users": [], "clients": []},
    }
    env = {item["name"]: item for item in orchestration["env"]}
    assert env["PROKOS_ENGINE_USER_PASSWORD"]["valueFrom"]["secretKeyRef"] == {"name": "engine-user", "key": "password"}


def test_oidc_gives_its_client_the_rights() -> None:
    security = build_values(cell("8.8", "none", "oidc", 1))["orchestration"]["security"]
    assert security["authentication"]["oidc"] == {
        "issuer": "https://id.example.com/realms/camunda",
        "clientId": "engine",
        "audience": "orchestration-api",
        "secret": {"existingSecret": "engine-client", "existingSecretKey": "secret"},
    }
    assert security["initialization"]["defaultRoles"]["admin"] == {"users": [], "clients": ["engine"]}


def test_tls_mounts_the_secret_and_switches_it_on() -> None:
    orchestration = build_values(settings(tlsSecret="engine-tls"))["orchestration"]
    assert orchestration["extraVolumes"][0]["secret"]["secretName"] == "engine-tls"
    env = {item["name"]: item["value"] for item in orchestration["env"]}
    directory = orchestration["extraVolumeMounts"][0]["mountPath"]
    assert env["ZEEBE_BROKER_GATEWAY_SECURITY_ENABLED"] == "true"
    assert env["ZEEBE_BROKER_GATEWAY_SECURITY_CERTIFICATECHAINPATH"] == f"{directory}/tls.crt"


def test_sizes_licence_and_heap() -> None:
    values = build_values(cell("8.9", "none", "open", 1))
    orchestration = values["orchestration"]
    assert (orchestration["pvcSize"], orchestration["pvcStorageClassName"]) == ("10Gi", "fast")
    assert orchestration["resources"] == {"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}}
    assert orchestration["javaOpts"].endswith("-XX:+ExitOnOutOfMemoryError -Xms1g -Xmx1g")
    assert values["global"]["license"]["secret"] == {"existingSecret": "camunda", "existingSecretKey": "license"}


# --- our own chart -------------------------------------------------------------------------------------------

OWN = {
    "chart": "camunda-engine",
    "heap": "1g",
    "resources": {"limits": {"memory": "2Gi"}},
    "volume": {"size": "20Gi", "storageClassName": "fast"},
    "licenseSecretRef": {"name": "camunda", "key": "license"},
    "tlsSecret": "engine-tls",
}


def test_our_own_chart_is_given_only_what_is_said() -> None:
    assert build_values(settings(chart="camunda-engine")) == {}
    assert build_values(settings(**OWN)) == {
        "heap": "1g",
        "resources": {"limits": {"memory": "2Gi"}},
        "persistence": {"size": "20Gi", "storageClassName": "fast"},
        "license": {"existingSecret": "camunda", "existingSecretKey": "license"},
        "tls": {"existingSecret": "engine-tls"},
    }


def test_values_of_our_own_chart_satisfy_its_schema() -> None:
    schema = json.loads((CHARTS / "camunda-engine" / "values.schema.json").read_text())
    jsonschema_rs.validator_for(schema).validate(build_values(settings(**OWN)))
    assert fixed_change({"persistence": {"size": "8Gi"}}, build_values(settings(**OWN))) is not None


@pytest.fixture(scope="session")
def helm() -> str:
    """The real Helm: of this machine, or the one that `make cluster` builds."""
    cache = Path(os.environ.get("PROKOS_CACHE", Path.home() / ".cache" / "prokos"))
    found = shutil.which("helm") or next(map(str, sorted(cache.glob("cluster/*/helm"))), None)
    if found is None:
        pytest.skip("there is no helm; make cluster builds one")
    return found


def render(helm: str, release: str, values: dict[str, Any], directory: Path) -> list[dict[str, Any]]:
    (directory / "values.json").write_text(json.dumps(values))
    command = [helm, "template", release, str(CHARTS / "camunda-engine"), "--values", str(directory / "values.json")]
    rendered = subprocess.run(
        [*command, "--namespace", "flow", "--kube-version", "1.34"],
        env={"HOME": str(directory)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return read_objects(rendered.stdout)


@pytest.mark.parametrize("release", ["demo-engine", "my-zeebe", "a" * 47])
def test_helm_renders_our_own_chart_where_the_address_says(helm: str, release: str, tmp_path: Path) -> None:
    wanted = settings(**OWN)
    objects = render(helm, release, build_values(wanted), tmp_path)
    (service,) = [found for found in objects if found["kind"] == "Service"]
    (port,) = [port["port"] for port in service["spec"]["ports"] if port["name"] == "grpc"]
    address = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc:{port}"
    assert gateway_address(wanted, release, "flow", build_values(wanted)) == address
    (broker,) = [found for found in objects if found["kind"] == "StatefulSet"]
    (claim,) = broker["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    # Its volumes are found again by this label when they are to be deleted.
    assert broker["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == release


def test_our_own_chart_sets_what_the_embedded_engine_does(helm: str, tmp_path: Path) -> None:
    (broker,) = [found for found in render(helm, "demo", {}, tmp_path) if found["kind"] == "StatefulSet"]
    (container,) = broker["spec"]["template"]["spec"]["containers"]
    chart = {variable["name"]: variable.get("value") for variable in container["env"]}
    embedded = build_environment(EmbeddedSettings(tmp_path, tmp_path / "log"), EnginePorts(1, 2, 3, 4, 5), "test", {})
    alike = [name for name in embedded if re.match("ZEEBE_BROKER_(EXPERIMENTAL|PROCESSING|DATA_(LOG|DISK))", name)]
    assert len(alike) == 6
    assert {name: chart.get(name) for name in alike} == {name: embedded[name] for name in alike}


def test_helm_finds_nothing_wrong_with_our_own_chart(helm: str, tmp_path: Path) -> None:
    linted = subprocess.run(
        [helm, "lint", "--strict", str(CHARTS / "camunda-engine")],
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout


# --- merging -------------------------------------------------------------------------------------------------


def test_values_of_the_user_come_last() -> None:
    values = build_values(settings(values={"orchestration": {"logLevel": "debug", "clusterSize": "2"}, "extra": 1}))
    assert values["extra"] == 1
    assert (values["orchestration"]["logLevel"], values["orchestration"]["clusterSize"]) == ("debug", "2")
    assert values["orchestration"]["partitionCount"] == "1"


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
        ({"a": []}, {"a": [{"name": "x"}]}, {"a": [{"name": "x"}]}),
        (
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
            {"env": [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}]},
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}]},
        ),
        (
            {"m": [{"name": "v", "mountPath": "/a"}]},
            {"m": [{"name": "v", "mountPath": "/b"}]},
            {"m": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]},
        ),
    ],
)
def test_merges_as_helm_does_but_for_named_lists(base: Any, over: Any, merged: Any) -> None:
    before = json.dumps(base)
    assert merge_values(base, over) == merged
    assert json.dumps(base) == before


# --- address and connection ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "values", "address"),
    [
        ("pdo", {}, "pdo-zeebe-gateway.flow.svc:26500"),
        ("my-zeebe", {}, "my-zeebe-gateway.flow.svc:26500"),
        ("pdo", {"orchestration": {"nameOverride": "core"}}, "pdo-core-gateway.flow.svc:26500"),
        ("pdo", {"orchestration": {"fullnameOverride": "engine"}}, "engine-gateway.flow.svc:26500"),
        ("pdo", {"orchestration": {"service": {"grpcPort": 9000}}}, "pdo-zeebe-gateway.flow.svc:9000"),
        ("a" * 57, {}, f"{'a' * 57}-zeebe-gateway.flow.svc:26500"),
        ("a" * 60, {}, f"{'a' * 60}-ze-gateway.flow.svc:26500"),
        ("a" * 62, {}, f"{'a' * 62}-gateway.flow.svc:26500"),
    ],
)
def test_address_follows_the_names_of_the_chart(release: str, values: dict[str, Any], address: str) -> None:
    wanted = settings(values=values)
    assert gateway_address(wanted, release, "flow", build_values(wanted)) == address


def test_connection_names_credentials_by_reference() -> None:
    wanted = cell("8.9", "none", "oidc", 1)
    engine = engine_connection(wanted, "pdo", "flow", build_values(wanted))
    assert engine.tls.enabled
    assert engine.tls.ca_secret_ref is not None
    assert (engine.tls.ca_secret_ref.name, engine.tls.ca_secret_ref.key) == ("engine-tls", "ca.crt")
    assert engine.oauth is not None
    assert engine.oauth.client_secret.secret_key_ref is not None
    assert (engine.oauth.client_id, engine.oauth.audience) == ("engine", "orchestration-api")
    basic = cell("8.9", "h2", "basic", 1)
    assert engine_connection(basic, "pdo", "flow", build_values(basic)).basic is not None
    plain = engine_connection(settings(), "pdo", "flow", build_values(settings()))
    assert (plain.tls.enabled, plain.basic, plain.oauth) == (False, None, None)


# --- the chart -----------------------------------------------------------------------------------------------


def test_camundas_chart_comes_from_its_repository() -> None:
    chart = find_chart(settings(), CHARTS)
    assert (chart.name, chart.reference, chart.repository, chart.version) == (
        "camunda-platform",
        "camunda-platform",
        CAMUNDA_REPOSITORY,
        "14",
    )


@pytest.mark.parametrize(
    ("chart", "name"),
    [
        ("oci://registry.example.com/charts/camunda-platform", "camunda-platform"),
        ("/charts/camunda-platform-14.8.4.tgz", "camunda-platform"),
        ("/charts/camunda-platform", "camunda-platform"),
    ],
)
def test_knows_the_chart_wherever_it_comes_from(chart: str, name: str) -> None:
    found = find_chart(settings(chart=chart), CHARTS)
    assert (found.name, found.reference, found.repository) == (name, chart, None)


def test_digest_changes_with_values_version_and_files_of_the_chart(tmp_path: Path) -> None:
    directory = tmp_path / "camunda-platform"
    directory.mkdir()
    (directory / "Chart.yaml").write_text("name: camunda-platform\nversion: 14.0.0\n")
    chart = find_chart(settings(chart=str(directory)), CHARTS)
    digests = {desired_digest(chart, {}), desired_digest(chart, {"a": 1})}
    digests.add(desired_digest(find_chart(settings(chart=str(directory), version="14.0.1"), CHARTS), {}))
    (directory / "values.yaml").write_text("a: 2\n")
    digests.add(desired_digest(find_chart(settings(chart=str(directory)), CHARTS), {}))
    assert len(digests) == 4
    assert all(len(digest) <= 63 for digest in digests)


def test_says_what_a_running_engine_cannot_become() -> None:
    current = {"orchestration": {"clusterSize": "3", "partitionCount": "3", "pvcSize": "32Gi"}}
    assert fixed_change(current, build_values(settings(brokers=3))) is None
    refused = fixed_change(current, build_values(settings(brokers=3, partitions=6)))
    assert refused is not None
    assert "partitionCount 3, which cannot become 6; set partitions to 3" in refused


# --- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"brokers": 1, "replicationFactor": 3}, "replicationFactor 3 needs as many brokers"),
        ({"brokers": 0}, "greater than or equal to 1"),
        ({"version": "15"}, "version '15'"),
        ({"version": "latest"}, "version 'latest'"),
        ({"chart": "zeebe"}, "needs its repository"),
        ({"chart": "/charts/zeebe", "brokers": 3, "address": "zeebe:26500"}, "brokers would do nothing"),
        ({"chart": "/charts/zeebe"}, "give the address"),
        ({"chart": "oci://r.example.com/camunda-platform", "repository": "https://r.example.com"}, "leave repository"),
        ({"chart": "camunda-engine", "version": "1"}, "leave version out"),
        ({"chart": "camunda-engine", "brokers": 3}, "camunda-engine is 1 broker"),
        ({"authentication": AUTHENTICATIONS["oidc"]}, "authentication needs tlsSecret"),
        ({"authentication": {}}, "exactly one of basic and oidc"),
        ({"storage": {"type": "postgresql", "username": "x"}}, "needs url and passwordSecretRef"),
        ({"storage": {"type": "h2", "username": "x"}}, "username would do nothing"),
        (
            {"storage": {**STORAGES["postgresql"], "url": "jdbc:postgresql://db/camunda?user=a&password=b"}},
            "must not hold a password",
        ),
        ({"storage": {**STORAGES["postgresql"], "url": "postgresql://db/camunda"}}, "String should match pattern"),
        ({"heap": "2048"}, "String should match pattern"),
        ({"replicas": 3}, "Extra inputs are not permitted"),
    ],
)
def test_refuses_settings_that_do_not_go_together(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**fields)
    assert reason in str(refused.value)
