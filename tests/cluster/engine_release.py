"""A release of the chart `camunda-engine`, as a person installs it."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from prokos.engine.client import EngineClient
from prokos.engine.connection import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cluster.conftest import Cluster

CHART = str(Path(__file__).parents[2] / "helm" / "camunda-engine")

STARTING = "600s"
"""An engine takes 15 s of two processors; here it shares them."""


class Engine:
    """A release of the chart in a namespace that admits restricted pods only."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *arguments)

    def until_ready(self) -> None:
        self.kubectl("rollout", "status", "statefulset/engine", f"--timeout={STARTING}")

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[EngineClient]:
        """A client of the gateway, by a port that kubectl forwards to its Service."""
        with self.cluster.start(
            "kubectl", "--namespace", self.namespace, "port-forward", "service/engine-zeebe-gateway", ":26500"
        ) as forwarding:
            assert forwarding.stdout is not None
            said = re.search(r"127\.0\.0\.1:(\d+)", forwarding.stdout.readline())
            assert said, "kubectl forwards no port"
            async with EngineClient(Connection(f"127.0.0.1:{said[1]}")) as client:
                yield client


def image_values(cluster: Cluster) -> list[str]:
    """Options of Helm for the image that was built here."""
    return ["--set-json", f"image={json.dumps(cluster.engine_image())}"]
