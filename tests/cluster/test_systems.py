"""Systems in namespaces of their own: an engine elsewhere, and engines that cannot be had."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cluster.engine_release import CHART, image_values
from cluster.pods import pod
from cluster.shop import NOOP_BPMN, OPERATOR, STARTING, Shop, resource, script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

NOWHERE = {"repository": "registry.invalid/engine", "tag": "1"}


def system(**engine: Any) -> str:
    """A ProkOS `demo`."""
    return resource("ProkOS", "demo", {"engine": engine})


@pytest.fixture
def space(operator: Cluster) -> Iterator[Shop]:
    """A namespace without a system."""
    with operator.namespace() as name:
        yield Shop(operator, name)


def test_an_engine_that_somebody_else_runs(operator, engine):
    """Its Secret and its name come late; the system comes up by itself when they are there."""
    elsewhere = Shop(operator, engine.namespace)
    address = f"late.{engine.namespace}.svc:26500"
    password = {"secretKeyRef": {"name": "engine-user", "key": "password"}}
    elsewhere.apply(
        system(
            external={"address": address, "tls": {"enabled": True}, "basic": {"username": "u", "password": password}}
        )
    )
    try:
        elsewhere.until_unready("prokos", "demo", "no Secret 'engine-user'", "create it", condition="EngineReady")
        elsewhere.apply(system(external={"address": address}))
        elsewhere.until_unready("prokos", "demo", address, condition="EngineReady")
        pod = json.loads(engine.kubectl("get", "pod", "engine-0", "-o", "json"))
        labels = {"statefulset.kubernetes.io/pod-name": pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"]}
        spec = {"selector": labels, "ports": [{"port": 26500}]}
        elsewhere.apply(json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "late"}, "spec": spec}))
        elsewhere.apply(
            resource("TaskExecutor", "noop", script(accepts=[{"jobType": "noop"}])),
            resource("ProcessDefinition", "noop", {"bpmn": NOOP_BPMN.format(process="noop", job_type="noop")}),
        )
        elsewhere.until_ready("prokos", "demo", STARTING)
        elsewhere.until_ready("processdefinition", "noop")
        elsewhere.run("noop")
    finally:
        kinds = "prokoses,taskexecutors,processdefinitions"
        elsewhere.kubectl("delete", kinds, "--all", "--timeout", "300s")
    # It is somebody else's: nothing of it is taken away.
    engine.until_ready()


TOKENS = """
import base64, http.server, json, os, ssl, sys, urllib.parse

class Tokens(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
        right = self.headers["authorization"] == "Basic " + base64.b64encode(b"prokos:s3cr3t").decode()
        # One write: several clients ask at once, each in a thread of its own.
        sys.stdout.write(f"{'right' if right else 'wrong'} {form.get('audience')}\\n")
        sys.stdout.flush()
        self.send_response(200 if right else 401)
        self.end_headers()
        token = {"access_token": "t0k3n", "token_type": "Bearer", "expires_in": 300}
        self.wfile.write(json.dumps(token if right else {"error": "invalid_client"}).encode())

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("", 8000), Tokens)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
memory = os.memfd_create("certificate")
os.write(memory, CERTIFICATE)
context.load_cert_chain(f"/proc/self/fd/{memory}")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def secret(name: str, **values: bytes) -> str:
    data = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in values.items()}
    return json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data})


def test_an_engine_that_speaks_tls_and_a_server_of_tokens(space):
    """Everybody who talks to the engine trusts its authority, and has a token of its own.

    That the token goes with each call is shown in tests/unit/test_connection_security.py: this gateway takes any.
    """
    authority, host = trustme.CA(), f"engine-zeebe-gateway.{space.namespace}.svc"
    certificate = authority.issue_cert(host)
    tokens = authority.issue_cert(f"tokens.{space.namespace}.svc")
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
    space.apply(
        secret(
            "engine-tls", tls_crt=chain, tls_key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        ),
        secret("engine-client", key=b"s3cr3t"),
        secret("engine-ca", ca_crt=trustme.CA().cert_pem.bytes()),
        pod("tokens", "-c", TOKENS.replace("CERTIFICATE", repr(tokens.private_key_and_cert_chain_pem.bytes()))),
    )
    space.kubectl("expose", "pod", "tokens", "--port=8000")
    values = [*image_values(space.cluster), "--set", "persistence.enabled=false,tls.existingSecret=engine-tls"]
    space.cluster.helm("install", "engine", CHART, "--namespace", space.namespace, *values)
    oauth = {
        "tokenUrl": f"https://tokens.{space.namespace}.svc:8000/token",
        "clientId": "prokos",
        "clientSecret": {"secretKeyRef": {"name": "engine-client", "key": "key"}},
        "audience": "zeebe",
    }
    tls = {"enabled": True, "caSecretRef": {"name": "engine-ca", "key": "ca.crt"}}
    space.apply(system(external={"address": f"{host}:26500", "tls": tls, "oauth": oauth}))
    space.kubectl("rollout", "status", "statefulset/engine", f"--timeout={STARTING:g}s")
    space.until_unready("prokos", "demo", "certificate", condition="EngineReady")
    space.apply(
        secret("engine-ca", ca_crt=authority.cert_pem.bytes()),
        resource("TaskExecutor", "noop", script(accepts=[{"jobType": "noop"}])),
        resource("ProcessDefinition", "noop", {"bpmn": NOOP_BPMN.format(process="noop", job_type="noop")}),
    )
    space.until_ready("prokos", "demo", STARTING)
    space.until_ready("processdefinition", "noop")
    space.run("noop")
    asked = space.kubectl("logs", "tokens").splitlines()
    # The PDO, the worker, and who starts the process.
    assert len(asked) >= 3
    assert set(asked) == {"right zeebe"}


def test_a_chart_that_fails_and_an_engine_without_an_image(space):
    """Each is told with what to do, and is over when the resource is right."""

    def chart(**values: Any) -> dict[str, Any]:
        return {"chart": "camunda-engine", "deletionPolicy": "Delete", "values": {"image": NOWHERE, **values}}

    # What counts in the end is the policy of the end.
    space.apply(system(helm={**chart(persistence={"size": "much"}), "deletionPolicy": "Retain"}))
    assert space.until_unready("prokos", "demo", "size", condition="EngineReady") == "ValuesRefused"
    space.apply(system(helm=chart()))
    reason = space.until_unready("prokos", "demo", "registry.invalid/engine:1", condition="EngineReady")
    assert reason in {"ErrImagePull", "ImagePullBackOff"}
    assert len(space.items("persistentvolumeclaims")) == 1
    space.kubectl("delete", "prokos", "demo", "--timeout", "300s")
    assert space.items("statefulsets,services,persistentvolumeclaims,secrets") == []


def test_a_system_that_is_deleted_while_no_operator_runs_goes_when_there_is_one(space):
    def operators(number: int) -> None:
        here = ("--namespace", OPERATOR)
        space.cluster.kubectl(*here, "scale", "deployment/prokos", f"--replicas={number}")
        if number:
            space.cluster.kubectl(*here, "rollout", "status", "deployment/prokos", "--timeout", "300s")
        else:
            space.until(lambda: not space.cluster.kubectl(*here, "get", "pods", "-o", "name"))

    space.apply(system(helm={"chart": "camunda-engine", "deletionPolicy": "Delete", "values": {"image": NOWHERE}}))
    space.until_unready("prokos", "demo", "registry.invalid/engine:1", condition="EngineReady")
    operators(0)
    try:
        space.kubectl("delete", "prokos", "demo", "--wait=false")
    finally:
        operators(1)
    space.kubectl("wait", "--for=delete", "prokos/demo", "--timeout", "300s")
    assert space.items("statefulsets,services,persistentvolumeclaims,secrets") == []


def test_a_namespace_goes_with_its_system(operator):
    """The finalizer holds nothing up, although the namespace takes no new objects by then."""
    with operator.namespace() as name:
        space = Shop(operator, name)
        space.apply(system(helm={"chart": "camunda-engine", "values": {"image": NOWHERE}}))
        space.until(lambda: space.items("statefulsets"))
        operator.kubectl("delete", "namespace", name, "--timeout", "300s")
