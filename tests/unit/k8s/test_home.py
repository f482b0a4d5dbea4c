"""What the operator keeps of what is there, and what its looks survive."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest

from prokos.engine import AccessDeniedError
from prokos.k8s.engine import EngineKeeper
from prokos.k8s.home import ClusterHome, Images, PdoState
from prokos.k8s.secrets import SecretReader
from prokos.k8s.system import ClusterSystem
from prokos.kernel import Desired
from prokos.registry import Registry
from prokos.resources import ProkOSSpec
from prokos.resources.engine_settings import EngineSettings
from prokos.resources.secrets import SecretKeyRef
from unit.builders import executor
from unit.k8s.manifests import SYSTEM, deployment, pod

pytestmark = pytest.mark.anyio


class Api:
    """An API server with one Deployment and some pods."""

    def __init__(self, replicas: int | None = None, pods: tuple[Any, ...] = ()) -> None:
        self.replicas = replicas
        self.pods = pods
        self.asked = 0

    async def get(self, *_: str) -> Any:
        self.asked += 1
        if self.replicas is None:
            return None
        found = deployment()
        return {**found, "spec": {**found["spec"], "replicas": self.replicas}}

    async def list_all(self, _: str, kind: str, *__: str) -> Any:
        return list(self.pods) if kind == "Pod" else []


def home(api: Api) -> ClusterHome:
    return ClusterHome(api, SYSTEM, Images("system", "worker"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("there", "kept"), [(None, 1), (0, 1), (4, 4), (9, 5)])
async def test_an_operator_that_starts_leaves_the_workers_of_a_backlog(there: int | None, kept: int) -> None:
    api = Api(there)
    starting = home(api)
    one = executor(scaling={"min": 1, "max": 5})
    assert [await starting._replicas(one) for _ in range(2)] == [kept, kept]
    assert api.asked == 1


async def test_a_number_of_workers_that_is_set_is_applied() -> None:
    api = Api(4)
    assert await home(api)._replicas(executor(replicas=2)) == 2
    assert await home(api)._replicas(executor(scaling={"podPerTask": True, "max": 3}, concurrency=1)) == 1
    assert api.asked == 0


async def test_a_pod_that_only_says_whose_it_is_breaks_nothing() -> None:
    stray = pod("stray")
    stray["metadata"]["labels"] = {"prokos.io/system": "demo"}
    assert (await home(Api(pods=(stray,))).pods()).pods == {}


async def test_a_secret_that_is_no_text_is_named_without_what_it_holds() -> None:
    class Cluster:
        async def get(self, *_: str) -> Any:
            return {"data": {"token": base64.b64encode(b"s3cr3t\xff").decode()}}

    reader = SecretReader(Cluster(), "shop")  # type: ignore[arg-type]
    with pytest.raises(AccessDeniedError, match="the key 'token' of Secret 'camunda' is no UTF-8 text") as refused:
        await reader.value(SecretKeyRef(name="camunda", key="token"))
    assert "s3cr3t" not in repr((refused.value, refused.value.__cause__))


async def test_what_breaks_a_reconciliation_off_is_told_once_and_without_values() -> None:
    said: list[tuple[str, str]] = []
    system = ClusterSystem(None, SYSTEM, dict, Images("system", "worker"), lambda *event: said.append(event[2:]))  # type: ignore[arg-type]
    for message in ("KeyError", "KeyError", "TypeError"):
        system._tell_broken(message)
    assert said == [("ReconcileFailed", "KeyError"), ("ReconcileFailed", "TypeError")]


@pytest.mark.parametrize(("registered", "applied"), [(1, 0), (2, 1)])
async def test_a_pdo_is_not_applied_before_its_settings_are_registered(registered: int, applied: int) -> None:
    """It reads them when it starts, and no second start follows."""
    made = []

    async def ensure_pdo() -> None:
        made.append("pdo")

    async def nothing() -> Any:
        return PdoState()

    def shards(number: int) -> Any:
        return ProkOSSpec.model_validate({"pdo": {"shards": number}})

    system = SimpleNamespace(
        home=SimpleNamespace(ensure_pdo=ensure_pdo, pdo_state=nothing, pods=nothing),
        registry=SimpleNamespace(load=lambda: Registry(system=shards(registered))),
        _resync_at=0.0,
    )
    await ClusterSystem._repair(system, Desired(system=shards(2)))  # type: ignore[arg-type]
    assert len(made) == applied


async def test_a_look_at_the_engine_that_breaks_is_told_and_is_not_the_last() -> None:
    async def broken(_: Any) -> Any:
        raise ValueError("nobody has thought of s3cr3t")

    class Secrets:
        connection = staticmethod(broken)

    settings = EngineSettings.model_validate({"external": {"address": "zeebe:26500"}})
    keeper = EngineKeeper(None, Secrets(), lambda: settings, lambda: None, lambda *_: None)  # type: ignore[arg-type]
    state = await keeper._look()
    assert (state.ready.status, state.ready.reason) == ("False", "LookFailed")
    assert state.ready.message == "ValueError; the operator's log says more"
