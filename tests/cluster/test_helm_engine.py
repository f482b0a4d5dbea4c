"""The engine's Helm release on a real cluster: made, changed, taken over and removed by the real Helm."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster.helm_release import ONE_BROKER, Release, chart, release
from prokos.k8s.engine_release import remove_release
from prokos.k8s.handlers import REMOVAL

__all__ = ["chart", "release"]

pytestmark = [pytest.mark.anyio, pytest.mark.cluster, pytest.mark.timeout(900)]

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
