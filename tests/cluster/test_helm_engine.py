"""The engine's Helm release on a real cluster: made, changed, repaired and removed by the real Helm.

The chart is a small one that has the names and values of Camunda's, so that nothing here depends on an engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from helpers import wait_until
from prokos.k8s.engine_release import EngineRelease, ReleaseState, remove_release
from prokos.k8s.handlers import REMOVAL
from prokos.k8s.helm import Helm, HelmError
from prokos.kube import open_client
from prokos.registry.cluster import SystemRef
from prokos.resources.helm_settings import HelmEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from cluster.conftest import Cluster
    from prokos.kube import KubeClient

pytestmark = [pytest.mark.anyio, pytest.mark.cluster, pytest.mark.timeout(900)]

MISSING = "docker.io/prokos/no-such-image:1"

CHART = {
    "Chart.yaml": """
        apiVersion: v2
        name: camunda-platform
        version: 14.8.4
        appVersion: "8.9.17"
        """,
    "values.yaml": """
        image: PAUSE
        orchestration: {clusterSize: "3", partitionCount: "3", replicationFactor: "3", pvcSize: 1Gi}
        """,
    "values.schema.json": json.dumps(
        {"properties": {"orchestration": {"properties": {"clusterSize": {"type": "string"}}}}}
    ),
    "templates/engine.yaml": """
        {{- $labels := dict "app.kubernetes.io/instance" .Release.Name "app" "camunda-platform" }}
        apiVersion: v1
        kind: ConfigMap
        metadata:
          name: {{ .Values.configName | default (printf "%s-configuration" .Release.Name) }}
        data: {note: {{ .Values.note | default "" | quote }}}
        ---
        apiVersion: v1
        kind: Service
        metadata: {name: {{ .Release.Name }}-zeebe-gateway, labels: {{ .Values.serviceLabels | default dict | toJson }}}
        spec: {selector: {{ $labels | toJson }}, ports: [{name: grpc, port: 26500}]}
        ---
        apiVersion: apps/v1
        kind: StatefulSet
        metadata: {name: {{ .Release.Name }}-zeebe}
        spec:
          replicas: {{ .Values.orchestration.clusterSize }}
          serviceName: {{ .Release.Name }}-zeebe
          podManagementPolicy: Parallel
          selector: {matchLabels: {{ $labels | toJson }}}
          template:
            metadata: {labels: {{ $labels | toJson }}, annotations: {note: {{ .Values.note | default "" | quote }}}}
            spec:
              schedulerName: {{ .Values.scheduler | default "default-scheduler" }}
              terminationGracePeriodSeconds: 1
              automountServiceAccountToken: false
              securityContext:
                runAsNonRoot: {{ not .Values.root }}
                runAsUser: 65532
                seccompProfile: {type: RuntimeDefault}
              containers:
                - name: orchestration
                  image: {{ .Values.image }}
                  securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
                  volumeMounts: [{name: data, mountPath: /data}]
          volumeClaimTemplates:
            - metadata: {name: data}
              spec:
                accessModes: [ReadWriteOnce]
                resources: {requests: {storage: {{ .Values.orchestration.pvcSize }}}}
        """,
    "templates/hook.yaml": """
        {{- if .Values.block }}
        apiVersion: v1
        kind: Pod
        metadata:
          name: {{ .Release.Name }}-hook
          annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}
        spec:
          restartPolicy: Never
          securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
          containers:
            - name: hook
              image: {{ .Values.image }}
              securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        {{- end }}
        {{- if .Values.fail }}{{ fail .Values.fail }}{{ end }}
        """,
}
"""With `block`, Helm waits for a pod that never ends; so a test can be there while it works."""


def pause_image(cluster: Cluster) -> str:
    """An image that is on the node and does nothing: the one that holds its pods together."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
        # A node that has just started does not tell of its images yet, and some of them have no name.
        images = [image for node in nodes for image in node["status"].get("images") or []]
        names = [name for image in images for name in image.get("names") or []]
        if found := [name for name in names if "pause" in name and "@" not in name]:
            return found[0]
        time.sleep(1)
    raise AssertionError("the node tells of no pause image")


@pytest.fixture(scope="session")
def chart(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory, image = tmp_path_factory.mktemp("charts") / "camunda-platform", pause_image(cluster)
    for name, text in CHART.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip().replace("PAUSE", image))
    return directory


ONE_BROKER = {"clusterSize": "1", "partitionCount": "1", "replicationFactor": "1"}


class Release:
    """The release of a ProkOS `demo` in a namespace of its own."""

    def __init__(self, client: KubeClient, helm: Helm, cluster: Cluster, namespace: str, chart: Path) -> None:
        self.client = client
        self.helm = helm
        self.cluster = cluster
        self.namespace = namespace
        self.chart = chart
        self.system = SystemRef(namespace, "demo", "uid-of-demo")
        self.keeper = self.new_operator()

    def new_operator(self, settled: int | None = None) -> EngineRelease:
        """An operator that has just started."""
        return EngineRelease(self.client, self.system, self.helm, settled=settled)

    def settings(self, **fields: Any) -> HelmEngine:
        return HelmEngine.model_validate(
            {"chart": str(self.chart), "timeout": "10m", **fields}, by_alias=True, by_name=False
        )

    async def reconcile(self, **fields: Any) -> ReleaseState:
        return await self.keeper.reconcile(self.settings(**fields))

    async def until(self, wanted: Any, **fields: Any) -> ReleaseState:
        """Reconcile as the operator does, again and again, until the state is as wanted."""
        states: list[ReleaseState] = []

        async def holds() -> ReleaseState | None:
            states.append(await self.reconcile(**fields))
            await asyncio.sleep(0.2)
            return states[-1] if wanted(states[-1]) else None

        found: ReleaseState = await wait_until(holds, 120, lambda: states[-1])
        return found

    async def ready(self, **fields: Any) -> ReleaseState:
        return await self.until(lambda state: state.ready and state.reason == "Deployed", **fields)

    async def statuses(self) -> list[str]:
        return [revision.status for revision in await self.helm.history(self.namespace, "demo-engine")]

    async def labels(self) -> dict[str, str]:
        history = await self.helm.history(self.namespace, "demo-engine")
        content = await self.helm.content(self.namespace, "demo-engine", history[-1].number)
        return dict(content.labels)

    async def claims(self) -> list[dict[str, Any]]:
        return await self.client.list_all("v1", "PersistentVolumeClaim", self.namespace)

    def by_hand(self, verb: str, *words: str, **values: Any) -> None:
        """What a person does with Helm."""
        given = ",".join(f"{name}={json.dumps(value)}" for name, value in values.items())
        self.cluster.helm(verb, "demo-engine", str(self.chart), *words, "--set-json", given, "-n", self.namespace)


@pytest.fixture
async def release(
    cluster: Cluster, chart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Release]:
    from hack.cluster.binaries import binaries_directory

    monkeypatch.setenv("PATH", f"{binaries_directory()}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    # The library reads the variable when it is imported.
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(cluster.kubeconfig))
    name = f"helm-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    async with open_client("prokos-test") as client:
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        try:
            yield Release(client, Helm(directory=tmp_path / "helm"), cluster, name, chart)
        finally:
            await client.delete("v1", "Namespace", "", name)


# --- made and changed ----------------------------------------------------------------------------------------


async def test_installs_and_then_leaves_it_alone(release: Release) -> None:
    first = await release.reconcile()
    assert [(event.type, event.reason) for event in first.events] == [("Normal", "Installed")]
    assert (first.revision, first.chart) == (1, "camunda-platform-14.8.4")
    state = await release.ready()
    assert (state.revision, state.settled, state.events) == (1, 1, [])
    assert state.engine.address == f"demo-engine-zeebe-gateway.{release.namespace}.svc:26500"
    assert (await release.labels())["prokos.io/system"] == "demo"
    again = await release.new_operator().reconcile(release.settings())
    assert (again.revision, again.settled, again.events) == (1, 1, [])


async def test_pods_that_nobody_has_looked_at_yet_are_waited_for(release: Release) -> None:
    state = await release.reconcile(values={"scheduler": "nobody"})
    assert (state.reason, state.ready, state.transient) == ("Progressing", False, True)


async def test_upgrades_when_the_settings_change(release: Release) -> None:
    await release.ready()
    changed = await release.reconcile(values={"note": "second"})
    assert [event.reason for event in changed.events] == ["Upgraded"]
    state = await release.ready(values={"note": "second"})
    assert (state.revision, state.settled) == (2, 2)
    config = await release.client.get("v1", "ConfigMap", release.namespace, "demo-engine-configuration")
    assert config is not None
    assert config["data"] == {"note": "second"}


async def test_puts_back_what_was_deleted(release: Release) -> None:
    await release.ready()
    await release.client.delete("v1", "Service", release.namespace, "demo-engine-zeebe-gateway")
    state = await release.new_operator().reconcile(release.settings())
    assert [(event.reason, "Service demo-engine-zeebe-gateway" in event.message) for event in state.events] == [
        ("Repaired", True)
    ]
    assert await release.client.get("v1", "Service", release.namespace, "demo-engine-zeebe-gateway") is not None


async def test_notices_a_workload_that_is_gone_at_the_next_look(release: Release) -> None:
    await release.ready()
    await release.client.delete("apps/v1", "StatefulSet", release.namespace, "demo-engine-zeebe")
    repaired = await release.until(lambda state: state.events)
    assert repaired.events[0].reason == "Repaired"
    await release.ready()


# --- what fails ----------------------------------------------------------------------------------------------


async def test_goes_back_from_an_upgrade_that_the_cluster_refuses(release: Release) -> None:
    await release.ready()
    wrong = {"values": {"configName": "Not_A_Name"}}
    state = await release.reconcile(**wrong)
    assert [(event.type, event.reason) for event in state.events] == [
        ("Warning", "Failed"),
        ("Warning", "UpgradeFailed"),
    ]
    assert "Not_A_Name" in state.events[0].message
    assert (state.current, state.reason, state.ready) == (False, "RolledBack", True)
    assert "Not_A_Name" in state.message
    assert await release.statuses() == ["superseded", "failed", "deployed"]
    assert (await release.new_operator().reconcile(release.settings(**wrong))).events == []
    assert (await release.ready(values={"note": "right"})).revision == 4


async def test_goes_back_from_an_upgrade_that_does_not_get_ready(release: Release) -> None:
    await release.ready()
    # How long it may take is not a part of what is wanted: the node has the time it needs to say what is wrong.
    patient = {"values": {"image": MISSING}, "timeout": "10m"}
    await release.reconcile(**patient)
    stuck = await release.until(lambda state: MISSING in state.message, **patient)
    assert (stuck.current, stuck.ready, stuck.transient) == (True, False, False)
    back = await release.until(lambda state: state.events, **{**patient, "timeout": "20s"})
    assert [(event.type, event.reason) for event in back.events] == [("Warning", "NotReadyInTime")]
    assert MISSING in back.events[0].message
    state = await release.until(lambda state: state.ready, **patient)
    assert (state.current, state.reason, state.revision) == (False, "RolledBack", 3)


async def test_a_first_install_that_does_not_get_ready_stays_and_recovers(release: Release) -> None:
    wrong = {"values": {"image": MISSING}, "timeout": "1s"}
    state = await release.until(lambda state: MISSING in state.message, **wrong)
    assert not state.transient
    await asyncio.sleep(1)
    assert (await release.reconcile(**wrong)).events == []
    assert (await release.ready()).revision == 2


async def test_says_why_the_namespace_admits_no_pods(release: Release) -> None:
    state = await release.until(lambda state: state.reason == "FailedCreate", values={"root": True})
    assert "gets no pods" in state.message
    assert "runAsNonRoot" in state.message


async def test_values_that_the_chart_refuses_name_the_field(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prokos.k8s.engine_release.FIRST_HOLD", 300)
    wrong = {"values": {"orchestration": {"clusterSize": 1}}}
    state = await release.reconcile(**wrong)
    assert (state.reason, state.ready, state.current, state.revision) == ("ValuesRefused", False, False, None)
    assert "orchestration.clusterSize: got number, want string" in state.message
    again = await release.reconcile(**wrong)
    assert (again.message, again.events) == (state.message, [])
    assert (await release.reconcile()).revision == 1


async def test_a_chart_that_fails_says_what_it_said(release: Release) -> None:
    state = await release.reconcile(values={"fail": "please set the colour"})
    assert state.reason == "ValuesRefused"
    assert "please set the colour" in state.message


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """A chart repository with nothing in it, on the loopback interface."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    (tmp_path / "index.yaml").write_text("apiVersion: v1\nentries: {}\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_a_chart_that_is_not_there_says_where_to_look(release: Release, repository: str) -> None:
    for fields in ({"chart": "camunda-platform", "repository": repository}, {"chart": "/no/such/camunda-platform"}):
        state = await release.reconcile(**fields)
        assert (state.reason, state.revision) == ("ChartNotFound", None)
        assert "check chart, repository and version" in state.message


async def test_an_object_of_somebody_else_is_not_overwritten(release: Release) -> None:
    metadata = {"name": "demo-engine-configuration", "namespace": release.namespace}
    await release.client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"mine": "1"}})
    state = await release.reconcile()
    assert state.reason == "Conflict"
    assert "demo-engine-configuration" in state.message
    config = await release.client.get("v1", "ConfigMap", release.namespace, "demo-engine-configuration")
    assert config is not None
    assert config["data"] == {"mine": "1"}


async def test_a_cluster_that_does_not_answer_is_an_error(release: Release, tmp_path: Path) -> None:
    text = release.cluster.kubeconfig.read_text()
    server = next(line for line in text.splitlines() if "server:" in line)
    (tmp_path / "kubeconfig").write_text(
        text.replace(server, f"{server.partition('server:')[0]}server: https://127.0.0.1:1")
    )
    helm = Helm(environ={**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig")}, directory=tmp_path / "elsewhere")
    with pytest.raises(HelmError) as failed:
        await EngineRelease(release.client, release.system, helm).reconcile(release.settings())
    assert failed.value.reason == "Unreachable"


# --- what was there ------------------------------------------------------------------------------------------


async def test_takes_over_a_release_made_by_hand(release: Release) -> None:
    release.by_hand("install", orchestration=ONE_BROKER)
    state = await release.reconcile()
    assert [event.reason for event in state.events] == ["Adopted"]
    assert (await release.labels())["prokos.io/system"] == "demo"
    assert (await release.ready()).revision == 2


async def test_takes_over_nothing_that_would_lose_data(release: Release) -> None:
    release.by_hand("install", orchestration={"clusterSize": "2"})
    state = await release.reconcile()
    assert (state.reason, state.revision, state.events) == ("CannotChange", 1, [])
    assert "clusterSize 2, which cannot become 1; set brokers to 2" in state.message


@pytest.mark.parametrize("owner", ["ProkOS", "Flux"])
async def test_leaves_a_release_of_another_alone_unless_it_is_named(release: Release, owner: str) -> None:
    values: dict[str, Any] = {"orchestration": ONE_BROKER}
    if owner == "Flux":
        values["serviceLabels"] = {"helm.toolkit.fluxcd.io/name": "engine"}
    release.by_hand("install", *(["--labels", "prokos.io/system=other"] if owner == "ProkOS" else []), **values)
    before = await release.statuses()
    state = await release.reconcile()
    assert (state.reason, state.ready, state.events) == ("ReleaseOfAnother", False, [])
    assert owner in state.message
    assert await release.statuses() == before
    await remove_release(release.client, release.system, release.settings(), release.helm)
    assert await release.statuses() == before
    taken = await release.reconcile(release="demo-engine")
    assert [event.reason for event in taken.events] == ["Upgraded" if owner == "ProkOS" else "Adopted"]


# --- what was interrupted ------------------------------------------------------------------------------------

OPERATOR = """
import asyncio, json, sys
from pathlib import Path
from prokos.k8s.engine_release import EngineRelease
from prokos.k8s.helm import Helm
from prokos.kube import open_client
from prokos.registry.cluster import SystemRef
from prokos.resources.helm_settings import HelmEngine

async def main(namespace, directory, settings):
    async with open_client("prokos-test") as client:
        keeper = EngineRelease(client, SystemRef(namespace, "demo", "u"), Helm(directory=Path(directory)))
        await keeper.reconcile(HelmEngine.model_validate_json(settings))

asyncio.run(main(*sys.argv[1:]))
"""


def started(release: Release, command: list[str]) -> subprocess.Popen[bytes]:
    """A program that goes on while the test looks; `release` has set the variables that lead it to the cluster."""
    return subprocess.Popen(command, env={**os.environ, "HOME": str(release.chart.parent)})


async def kill_operator_at_work(release: Release, directory: Path, status: str) -> None:
    """Run an operator whose Helm blocks, and kill it when the release has a status."""
    settings = release.settings(values={"block": True}).model_dump_json(by_alias=True)
    command = [sys.executable, "-c", OPERATOR, release.namespace, str(directory), settings]
    with started(release, command) as operator:
        try:
            await wait_until(lambda: _last(release, status), 180)
            children = psutil.Process(operator.pid).children(recursive=True)
            assert [child for child in children if "helm" in child.name()]
        finally:
            operator.send_signal(signal.SIGKILL)
    await wait_until(lambda: not any(child.is_running() for child in children), 10)


async def _last(release: Release, status: str) -> bool:
    statuses = await release.statuses()
    return statuses[-1:] == [status]


async def test_repairs_an_install_that_a_killed_operator_left(release: Release, tmp_path: Path) -> None:
    await kill_operator_at_work(release, tmp_path / "killed", "pending-install")
    state = await release.reconcile()
    assert [event.reason for event in state.events] == ["Uninstalled", "Installed"]
    assert (await release.ready()).revision == 1


async def test_repairs_an_upgrade_that_a_killed_operator_left(release: Release, tmp_path: Path) -> None:
    await release.ready()
    await kill_operator_at_work(release, tmp_path / "killed", "pending-upgrade")
    state = await release.reconcile(values={"note": "after"})
    assert [event.reason for event in state.events] == ["Interrupted", "Upgraded"]
    assert (await release.ready(values={"note": "after"})).revision == 4


async def test_a_cancelled_reconcile_leaves_no_helm_and_is_repeated(release: Release) -> None:
    await release.ready()
    work = asyncio.create_task(release.reconcile(values={"block": True}))
    await wait_until(lambda: _last(release, "pending-upgrade"), 180)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    assert [child for child in psutil.Process().children(recursive=True) if "helm" in child.name()] == []
    assert await _last(release, "failed")
    assert [event.reason for event in (await release.reconcile()).events] == ["Upgraded"]


async def test_waits_while_somebody_else_works_on_the_release(release: Release) -> None:
    release.by_hand("install", orchestration=ONE_BROKER)
    command = ["helm", "upgrade", "demo-engine", str(release.chart), "--set", "block=true", "-n", release.namespace]
    with started(release, command) as person:
        try:
            await wait_until(lambda: _last(release, "pending-upgrade"), 180)
            state = await release.reconcile()
            assert (state.reason, state.events) == ("Busy", [])
        finally:
            person.terminate()


# --- removed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "kept"), [("Retain", 1), ("Delete", 0)])
async def test_removes_the_release_and_keeps_volumes_unless_told(release: Release, policy: str, kept: int) -> None:
    settings = release.settings(deletionPolicy=policy)
    await release.ready()
    assert len(await release.claims()) == 1
    await asyncio.wait_for(remove_release(release.client, release.system, settings, release.helm), REMOVAL)
    assert await release.statuses() == []
    assert await release.client.list_all("v1", "Pod", release.namespace) == []
    assert len(await release.claims()) == kept
    await remove_release(release.client, release.system, settings, release.helm)


async def test_retained_volumes_are_those_of_the_next_release(release: Release) -> None:
    await release.ready()
    (before,) = await release.claims()
    await remove_release(release.client, release.system, release.settings(), release.helm)
    await release.ready()
    (after,) = await release.claims()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


async def test_an_orphan_stays_as_it_is(release: Release) -> None:
    await release.ready()
    settings = release.settings(deletionPolicy="Orphan")
    await remove_release(release.client, release.system, settings, release.helm)
    assert await release.statuses() == ["deployed"]
    assert (await release.new_operator().reconcile(release.settings())).events == []
