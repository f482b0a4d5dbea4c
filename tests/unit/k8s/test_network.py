"""What pods may reach: what is declared, and nothing else."""

from __future__ import annotations

import pytest

from prokos.k8s.network import destinations, executor_egress
from prokos.k8s.workers import build_workers
from unit.builders import executor
from unit.k8s.manifests import context

OWN = {"podSelector": {}}
DATA = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data"}}}


def http(url, **settings):
    return executor(type="http", script=None, http={"url": url, **settings})


def sql(url):
    return executor(type="sql", script=None, sql={"url": url, "statement": "select 1"})


def ports(rule):
    return [entry["port"] for entry in rule["ports"]]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.1.2.3", [{"ipBlock": {"cidr": "10.1.2.3/32"}}]),
        ("[2001:db8::1]", [{"ipBlock": {"cidr": "2001:db8::1/128"}}]),
        ("db", [OWN]),
        ("db.shop.svc", [OWN]),
        ("db.data.svc", [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data"}}}]),
        (
            "db.data.svc.cluster.local.",
            [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data"}}}],
        ),
    ],
)
def test_where_a_host_is(host, expected):
    assert destinations(host, "shop") == expected


def test_a_public_name_is_the_public_network_without_private_addresses():
    v4, v6 = destinations("pay.example.com", "shop")
    assert v4["ipBlock"]["cidr"] == "0.0.0.0/0"
    assert {"10.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16"} <= set(v4["ipBlock"]["except"])
    assert v6["ipBlock"]["cidr"] == "::/0"


@pytest.mark.parametrize(
    ("url", "port"),
    [("https://pay.example.com/x", 443), ("http://pay.example.com", 80), ("https://pay.example.com:8443/{id}", 8443)],
)
def test_an_http_executor_reaches_the_port_of_its_url(url, port):
    (rule,) = executor_egress(http(url), "shop")
    assert ports(rule) == [port]


def test_allowed_networks_are_open_at_the_same_port():
    (rule,) = executor_egress(http("https://pay.example.com", allowedNetworks=["10.9.0.0/16"]), "shop")
    assert {"ipBlock": {"cidr": "10.9.0.0/16"}} in rule["to"]


def test_a_url_that_the_input_decides_opens_nothing():
    assert executor_egress(http("{+url}"), "shop") == []


@pytest.mark.parametrize(
    ("url", "expected"), [("postgresql://db.data.svc/orders", [5432]), ("postgresql://db:6432/orders", [6432])]
)
def test_a_sql_executor_reaches_its_server(url, expected):
    (rule,) = executor_egress(sql(url), "shop")
    assert ports(rule) == expected


def test_sqlite_reaches_nothing():
    assert executor_egress(sql("sqlite:///orders.db"), "shop") == []


def test_declared_destinations_are_taken_as_they_are():
    egress = [
        {"cidr": "192.0.2.7/32", "ports": [{"port": 9000}]},
        {"namespace": "data", "pods": {"app": "cache"}, "ports": [{"port": 6379}, {"port": 53, "protocol": "UDP"}]},
    ]
    first, second = executor_egress(executor(network={"egress": egress}), "shop")
    assert first == {"to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}], "ports": [{"port": 9000, "protocol": "TCP"}]}
    assert second["to"] == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data"}},
            "podSelector": {"matchLabels": {"app": "cache"}},
        }
    ]
    assert second["ports"][1] == {"port": 53, "protocol": "UDP"}


def test_a_script_reaches_name_service_engine_and_pdo_only():
    (policy,) = [one for one in build_workers(executor(), {}, context(), 1) if one["kind"] == "NetworkPolicy"]
    assert [ports(rule) for rule in policy["spec"]["egress"]] == [[53, 53], [26500], [26600]]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert [ports(rule) for rule in policy["spec"]["ingress"]] == [[9464]]
