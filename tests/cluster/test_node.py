"""The cluster itself: what its users rely on, whichever sort it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cluster.pods import pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

STARTING = "300s"

SERVER = "import http.server as s; s.test(s.SimpleHTTPRequestHandler, port=8000)"
CLIENT = "import urllib.request as u; print(u.urlopen('http://{host}:8000/', timeout=20).status)"
CONNECT = "import socket; socket.create_connection(('{address}', 443), timeout=20)"
RESOLVE = "import socket; socket.getaddrinfo('{name}', 443)"


class Namespace:
    """A namespace with a pod `server`, which answers HTTP on port 8000, behind a Service `web`."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.name, *arguments, stdin=stdin)

    def start(self, manifest: str) -> None:
        name = json.loads(manifest)["metadata"]["name"]
        self.kubectl("apply", "-f", "-", stdin=manifest)
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", f"--timeout={STARTING}")

    def python(self, source: str) -> str:
        """What a program prints that runs in the pod."""
        return self.kubectl("exec", "server", "--", "python", "-c", source)

    def python_fails(self, source: str) -> str:
        """The last line of the traceback of a program that fails in the pod."""
        return self.cluster.refused("--namespace", self.name, "exec", "server", "--", "python", "-c", source)


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    from hack.cluster.commands import wait_until

    cluster.load_images("worker")
    with cluster.namespace() as name:
        space = Namespace(cluster, name)
        space.start(pod("server", "-c", SERVER))
        space.kubectl("expose", "pod", "server", "--port=8000", "--name=web")
        # The Service is known to the name server and to kube-proxy a moment later.
        asked = ("--namespace", name, "exec", "server", "--", "python", "-c", CLIENT.format(host="web"))
        wait_until(lambda: cluster.succeeds(*asked), "the Service answers", 300)
        yield space


@pytest.mark.parametrize("suffix", ["", ".{}", ".{}.svc", ".{}.svc.cluster.local"])
def test_a_pod_answers_by_the_name_of_its_service(namespace, suffix):
    assert namespace.python(CLIENT.format(host="web" + suffix.format(namespace.name))).strip() == "200"


def test_what_a_pod_says_can_be_read(namespace):
    from hack.cluster.commands import wait_until

    namespace.python(CLIENT.format(host="web"))
    wait_until(lambda: "GET / HTTP" in namespace.kubectl("logs", "server"), "the request is in the log", 20)


def test_a_pod_that_is_not_restricted_is_refused(namespace):
    manifest = pod("wrong", "-c", "pass", allowPrivilegeEscalation=True)
    said = namespace.cluster.refused("--namespace", namespace.name, "apply", "-f", "-", stdin=manifest)
    assert "allowPrivilegeEscalation" in said


def test_a_pods_root_file_system_is_read_only(namespace):
    assert "Read-only file system" in namespace.python_fails("open('/opt/mine', 'w')")


def test_a_volume_outlives_its_pods(namespace):
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "kept"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
    }
    namespace.kubectl("apply", "-f", "-", stdin=json.dumps(claim))
    done = ("wait", "--for=jsonpath={.status.phase}=Succeeded", f"--timeout={STARTING}")
    for name, program in (
        ("writer", "open('/data/note', 'w').write('kept')"),
        ("reader", "print(open('/data/note').read())"),
    ):
        namespace.kubectl("apply", "-f", "-", stdin=pod(name, "-c", program, volume="kept"))
        namespace.kubectl(*done, f"pod/{name}")
    assert namespace.kubectl("logs", "reader").strip() == "kept"
    volume = namespace.kubectl("get", "pvc/kept", "-o", "jsonpath={.spec.volumeName}")
    namespace.kubectl("delete", "pod/writer", "pod/reader", "pvc/kept", "--timeout=60s")
    namespace.cluster.kubectl("wait", "--for=delete", f"pv/{volume}", "--timeout=60s")


def test_nothing_outside_is_reached_unless_it_is_asked_for(namespace):
    from hack.cluster.cluster import is_native
    from hack.cluster.settings import egress_is_open

    if not is_native() or egress_is_open():
        pytest.skip("this cluster lets pods out")
    # An address for documentation (RFC 5737) and a name that never exists (RFC 6761).
    assert "ConnectionRefusedError" in namespace.python_fails(CONNECT.format(address="198.51.100.1"))
    assert "Name or service not known" in namespace.python_fails(RESOLVE.format(name="nothing.invalid"))


def test_bringing_up_what_is_up_changes_nothing(namespace):
    from hack.cluster import cluster

    def restarts() -> str:
        fields = "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[*].restartCount}\n{end}"
        return namespace.cluster.kubectl("get", "pods", "--all-namespaces", "-l", "k8s-app=kube-dns", "-o", fields)

    before = restarts()
    cluster.up(temporary=True)
    assert restarts() == before
