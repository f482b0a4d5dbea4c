"""A small chart with the names and values of Camunda's, and a release of it that an operator keeps.

Nothing here depends on an engine.
"""

from __future__ import annotations

import asyncio
import json
import os
import textwrap
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import wait_until
from prokos.k8s.engine_release import EngineRelease, ReleaseState
from prokos.k8s.helm import Helm
from prokos.kube import open_client
from prokos.registry.cluster import SystemRef
from prokos.resources.helm_settings import HelmEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cluster.conftest import Cluster
    from prokos.kube import KubeClient

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

        found: ReleaseState = await wait_until(holds, 300, lambda: states[-1])
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
