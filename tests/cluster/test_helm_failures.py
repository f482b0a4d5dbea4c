"""What fails at the engine's Helm release, as the real Helm and a cluster say it, and what the operator makes of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster.helm_release import Release, chart, release
from prokos.k8s.engine_release import EngineRelease
from prokos.k8s.helm import Helm, HelmError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["chart", "release"]

pytestmark = [pytest.mark.anyio, pytest.mark.cluster, pytest.mark.timeout(900)]

MISSING = "docker.io/prokos/no-such-image:1"


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
