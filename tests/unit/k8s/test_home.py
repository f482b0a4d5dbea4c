"""What is kept of the workers that are there when an operator starts, and what its looks survive."""

from __future__ import annotations

from typing import Any

import pytest

from prokos.k8s.engine import EngineKeeper
from prokos.k8s.home import ClusterHome, Images
from prokos.resources.engine_settings import EngineSettings
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


async def test_a_look_at_the_engine_that_breaks_is_told_and_is_not_the_last() -> None:
    async def broken(_: Any) -> Any:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    class Secrets:
        connection = staticmethod(broken)

    settings = EngineSettings.model_validate({"external": {"address": "zeebe:26500"}})
    keeper = EngineKeeper(None, Secrets(), lambda: settings, lambda: None, lambda *_: None)  # type: ignore[arg-type]
    state = await keeper._look()
    assert (state.ready.status, state.ready.reason) == ("False", "LookFailed")
    assert "invalid start byte" in state.ready.message
