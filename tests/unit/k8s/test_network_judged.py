"""What an independent evaluator says of our NetworkPolicies: each pod reaches what it declares, and nothing else."""

from __future__ import annotations

import os
import shutil
from itertools import product
from typing import get_args

import pytest
from hack.cluster.binaries import binaries_directory

from prokos.k8s.engine_access import pod_access
from prokos.k8s.names import PDO, ROUTER, WORKER, object_labels
from prokos.k8s.pdo import build_pdo, build_router
from prokos.k8s.workers import build_single_use, build_workers
from prokos.resources import ProkOSSpec
from prokos.resources.executor import ExecutorType
from unit.builders import executor
from unit.grpc_service import descriptor_set
from unit.k8s.cyclonus import Connection, Peer, allowed
from unit.k8s.manifests import ENGINE, SYSTEM, context

pytestmark = [
    # The evaluator is built when it is needed first.
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        shutil.which("go") is None and not (binaries_directory() / "cyclonus").is_file() and not os.environ.get("CI"),
        reason="needs Go 1.24 or newer on the PATH, to build cyclonus",
    ),
]


def app(name: str, address: str, namespace: str) -> Peer:
    return Peer(name, address, namespace, {"app": name})


def part(component: str, address: str, name: str | None = None) -> Peer:
    return Peer(name or component, address, "shop", object_labels("demo", component, name))


# Our own namespace, `shop`
pdo, router = part(PDO, "10.244.0.2"), part(ROUTER, "10.244.0.3")
other_worker = part(WORKER, "10.244.0.4", "another")
crm, secret_store = app("crm", "10.244.0.5", "shop"), app("secret-store", "10.244.0.6", "shop")
# Other namespaces
engine, dashboard = app("zeebe", "10.244.1.2", "engines"), app("dashboard", "10.244.1.3", "monitoring")
database, cache = app("postgres", "10.244.1.4", "data"), app("cache", "10.244.1.5", "data")
stranger = Peer("stranger", "10.244.1.6", "strangers", {"app": "crm"})
dns = Peer("dns", "10.244.1.7", "kube-system", {"k8s-app": "kube-dns"})
other_pdo = Peer("pdo of another system", "10.244.1.8", "strangers", object_labels("demo", PDO))
# Outside of the cluster
public, public6 = Peer("public", "93.184.215.14"), Peer("public6", "2a00:1450::5")
partner = Peer("partner", "192.168.7.9")
literal = Peer("literal", "93.184.215.77")
dns_cache = Peer("dns cache of the node", "169.254.20.10")
FORBIDDEN = [
    Peer("metadata", "169.254.169.254"),
    Peer("metadata of Azure", "168.63.129.16"),
    Peer("metadata of Alibaba", "100.100.100.200"),
    Peer("metadata of Oracle", "192.0.0.192"),
    Peer("metadata of AWS", "fd00:ec2::254"),
    Peer("loopback", "127.0.0.1"),
    Peer("node", "172.16.0.9"),
    Peer("service", "10.96.0.1"),
    Peer("private network", "192.168.1.1"),
    Peer("carrier's network", "100.64.0.1"),
    Peer("IPv6 private network", "fd12::1"),
    Peer("IPv6 link-local", "fe80::1"),
    Peer("loopback by NAT64", "64:ff9b::7f00:1"),
    Peer("loopback by 6to4", "2002:7f00:1::1"),
]

DESTINATIONS = [
    pdo, router, other_worker, crm, secret_store, engine, dashboard, database, cache, stranger, dns, other_pdo,
    public, public6, partner, literal, dns_cache, *FORBIDDEN,
]  # fmt: skip
PORTS = [22, 53, 80, 443, 3306, 5432, 6379, 6432, 6443, 8080, 8443, 9000, 9464, 26500, 26600, 50051]

TRIED = [*((port, "TCP") for port in PORTS), (53, "UDP"), (443, "UDP")]

DNS = {(peer.name, 53, protocol) for peer in (dns, dns_cache) for protocol in ("TCP", "UDP")}
EVERY_WORKER = DNS | {(engine.name, 26500, "TCP"), (pdo.name, 26600, "TCP")}
PUBLIC = (public, public6, literal)
SHOP = (pdo, router, other_worker, crm, secret_store)


def http(url, **settings):
    return {"type": "http", "script": None, "http": {"url": url, **settings}}


def sql(**settings):
    return {"type": "sql", "script": None, "sql": {"statement": "SELECT 1", **settings}}


def grpc(address, **settings):
    return {"type": "grpc", "script": None, "grpc": {"address": address, "method": "shop.Payments/Pay", **settings}}


def egress(*rules):
    return {"network": {"egress": list(rules)}}


def tcp(*ports):
    return [{"port": port} for port in ports]


def at(port, *peers, protocol="TCP"):
    return {(peer.name, port, protocol) for peer in peers}


SECRET = {"secrets": [{"name": "url", "secretKeyRef": {"name": "db", "key": "url"}}]}
TYPES = {
    "script": {},
    "python": {"type": "python", "script": None, "python": {"executor": "shop:Pricing"}},
    "container": {"type": "container", "script": None, "container": {"image": "shop/pricing:1"}},
    "http": http("https://pay.example.com/v1/{id}"),
    "grpc": grpc("pay.example.com:50051", descriptorSet=descriptor_set()),
    "sql": sql(url="postgresql://db.data.svc/orders"),
}

# What each executor declares -> what its pod reaches besides what every worker does. A name of the cluster opens its
# namespace at that port, a public one every public address: policies know pods and addresses, not names.
DECLARED = {
    "script": (TYPES["script"], set()),
    "python": (TYPES["python"], set()),
    "container": (TYPES["container"], set()),
    "http": (TYPES["http"], at(443, *PUBLIC)),
    "grpc": (TYPES["grpc"], at(50051, *PUBLIC)),
    "sql": (TYPES["sql"], at(5432, database, cache)),
    "http on another port": (http("https://pay.example.com:8443/"), at(8443, *PUBLIC)),
    "http with a token": (
        http(
            "http://crm.shop.svc:8080/",
            auth={"oauth2": {"tokenUrl": "https://login.example.com/t", "clientId": "c", "clientSecret": "url"}},
        )
        | SECRET,
        # The PDO and the workers are of `shop`, too, and take nobody in but who belongs there.
        at(8080, pdo, crm, secret_store) | at(443, *PUBLIC),
    ),
    "http to a partner's network": (
        http("https://partner.example.com/", allowedNetworks=["192.168.7.0/24"]),
        at(443, *PUBLIC, partner),
    ),
    "http where the input says": (http("{+url}"), set()),
    "http to one address": (http("http://93.184.215.77:9000/"), at(9000, literal)),
    "http to the metadata service": (http("http://169.254.169.254/latest/meta-data"), set()),
    "http to a private address": (http("http://192.168.7.9:9000/"), set()),
    "http to a private address that is allowed": (
        http("http://192.168.7.9:9000/", allowedNetworks=["192.168.7.9/32"]),
        at(9000, partner),
    ),
    "grpc to the metadata service": (grpc("[fd00:ec2::254]:80"), set()),
    "grpc in the cluster": (grpc("crm.strangers.svc.cluster.local:50051"), at(50051, stranger, other_pdo)),
    "grpc to an address": (grpc("[2a00:1450::5]:443"), at(443, public6)),
    "sql on another port": (sql(url="mysql://db.data.svc:6432/orders"), at(6432, database, cache)),
    "sql on MariaDB": (sql(url="mariadb://93.184.215.77/orders"), at(3306, literal)),
    "sql on SQLite": (sql(url="sqlite:///orders.db"), set()),
    "sql whose address is a secret": (sql(urlSecret="url") | SECRET, set()),
    "sql whose address is a secret, declared": (
        sql(urlSecret="url")
        | SECRET
        | egress({"namespace": "data", "pods": {"app": "postgres"}, "ports": tcp(5432)}),
        at(5432, database),
    ),
    "one pod of a namespace": (
        egress({"namespace": "data", "pods": {"app": "cache"}, "ports": [*tcp(6379), {"port": 53, "protocol": "UDP"}]}),
        at(6379, cache) | at(53, cache, protocol="UDP"),
    ),
    "pods of the own namespace": (egress({"pods": {"app": "crm"}, "ports": tcp(8080, 9000)}), {
        *at(8080, crm), *at(9000, crm),
    }),
    "a namespace": (egress({"namespace": "monitoring", "ports": tcp(9000)}), at(9000, dashboard)),
    "a network": (egress({"cidr": "192.168.7.0/24", "ports": tcp(22)}), at(22, partner)),
}  # fmt: skip


def policy_of(objects):
    (policy,) = [manifest for manifest in objects if manifest["kind"] == "NetworkPolicy"]
    return policy


def labels_of(objects):
    (deployment,) = [manifest for manifest in objects if manifest["kind"] == "Deployment"]
    return deployment["spec"]["template"]["metadata"]["labels"]


def built(name, declared):
    return build_workers(executor(name, **declared), {}, context(), 1)


def system_part(build, **spec):
    return build(SYSTEM, ProkOSSpec.model_validate(spec), "prokos/system:1", ENGINE, pod_access(ENGINE))


LLM = {"mode": "llm", "model": "openai/x", "apiKey": {"secretKeyRef": {"name": "openai", "key": "key"}}}
OF_THE_SYSTEM = [policy_of(system_part(build_pdo)), policy_of(system_part(build_router, router=LLM))]
OTHERS = [*OF_THE_SYSTEM, policy_of(built("another", {}))]
"""Policies that are there whoever connects: those of the pods above that are ours."""


def reached(source, policies, directory):
    """(name of the destination, port, protocol) of all that a pod reaches."""
    tried = [
        Connection(source, destination, port, protocol)
        for destination, (port, protocol) in product(DESTINATIONS, TRIED)
    ]
    return {(one.destination.name, one.port, one.protocol) for one in allowed(policies, tried, directory)}


def test_every_type_is_judged():
    assert set(TYPES) == set(get_args(ExecutorType))
    assert {declared.get("type", "script") for declared, _ in DECLARED.values()} == set(TYPES)


@pytest.mark.parametrize("case", DECLARED)
def test_an_executors_pod_reaches_what_it_declares_and_nothing_else(tmp_path, case):
    declared, more = DECLARED[case]
    objects = built("payer", declared)
    source = Peer("payer", "10.244.0.9", "shop", labels_of(objects))
    found = reached(source, [*OTHERS, policy_of(objects)], tmp_path)
    # Workers answer for their metrics and the PDO for its status, wherever from; it is the sender who is closed.
    assert found - EVERY_WORKER == more
    assert found >= EVERY_WORKER


@pytest.mark.parametrize("kind", TYPES)
def test_the_pod_of_a_single_task_reaches_the_same(tmp_path, kind):
    declared = {**TYPES[kind], "scaling": {"podPerTask": True, "max": 3}, "concurrency": 1}
    made = build_single_use(executor("payer", **declared), {}, context(), "x1")
    source = Peer("payer", "10.244.0.9", "shop", made["spec"]["template"]["metadata"]["labels"])
    policy = policy_of(built("payer", declared))
    assert reached(source, [*OTHERS, policy], tmp_path) == EVERY_WORKER | DECLARED[kind][1]


@pytest.mark.parametrize("kind", TYPES)
def test_labels_of_the_users_do_not_take_a_pod_from_its_policy(tmp_path, kind):
    tricked = {"prokos.io/executor": "another", "app.kubernetes.io/component": "pdo", "prokos.io/system": "other"}
    objects = built("payer", {**TYPES[kind], "pod": {"labels": tricked}})
    source = Peer("payer", "10.244.0.9", "shop", labels_of(objects))
    tried = [Connection(source, peer, port) for peer, port in product(FORBIDDEN, (80, 9464, 26600))]
    assert allowed([*OTHERS, policy_of(objects)], tried, tmp_path) == set()


def test_who_reaches_a_worker_reaches_its_metrics_only(tmp_path):
    objects = built("payer", TYPES["container"])
    worker = Peer("payer", "10.244.0.9", "shop", labels_of(objects))
    sources = [other_worker, crm, dashboard, public]
    tried = [Connection(source, worker, port) for source, port in product(sources, PORTS)]
    found = allowed([*OTHERS, policy_of(objects)], tried, tmp_path)
    # Another worker may not even try.
    assert {(one.source.name, one.port) for one in found} == {(one.name, 9464) for one in (crm, dashboard, public)}


API_SERVER = {(peer.name, port, "TCP") for peer in DESTINATIONS for port in (443, 6443)}
"""Behind its Service the API server has an address that nobody here knows. Metadata is served at port 80."""


def closed_by_themselves(found):
    """Without what the other end refuses: PDO, router and workers take no connections at those ports."""
    return {one for one in found if one[0] not in {pdo.name, router.name, "another"}}


def test_the_pdo_reaches_engine_name_service_and_api_server(tmp_path):
    found = reached(pdo, OTHERS, tmp_path)
    assert found == closed_by_themselves(DNS | at(26500, engine) | API_SERVER)
    assert not {one for one in found if one[1] == 80}


@pytest.mark.parametrize(
    ("endpoint", "more"),
    [
        (None, set()),  # HTTPS, as the API server
        ("https://models.example.com:8443/v1", at(8443, *PUBLIC)),
        ("http://crm.shop.svc:8080", at(8080, pdo, crm, secret_store)),
    ],
)
def test_the_router_reaches_its_provider_too(tmp_path, endpoint, more):
    spec = {**LLM, **({"endpoint": endpoint} if endpoint else {})}
    policies = [OF_THE_SYSTEM[0], policy_of(system_part(build_router, router=spec)), OTHERS[2]]
    found = reached(router, policies, tmp_path)
    assert found == closed_by_themselves(DNS | at(26500, engine) | API_SERVER) | more


def test_hints_come_from_workers_of_the_system_only(tmp_path):
    sources = [other_worker, router, crm, stranger, public, dashboard]
    tried = [Connection(source, pdo, port) for source, port in product(sources, PORTS)]
    found = {(one.source.name, one.port) for one in allowed(OTHERS, tried, tmp_path)}
    outside = {(one.name, 8080) for one in (crm, stranger, public, dashboard)}
    assert found == {(other_worker.name, 26600), *outside}


def test_the_evaluator_would_see_an_open_pod(tmp_path):
    """Without a policy everything is reached; so what is closed above is closed by ours."""
    source = app("payer", "10.244.0.9", "strangers")
    found = reached(source, [], tmp_path)
    assert len(found) == len(DESTINATIONS) * len(TRIED)
