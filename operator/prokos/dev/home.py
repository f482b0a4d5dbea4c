"""The embedded home: desired state from manifests, workers and PDO as child processes."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import structlog

from prokos.dev.children import Children, ChildSpec
from prokos.kernel import Desired, DesiredProcess, Observed, WorkerState
from prokos.processes import check_manifests
from prokos.resources import ProkOS, ProkOSSpec, TaskExecutor, TaskRoute
from prokos.tde.deployment import WorkerDeployment, build_worker_deployment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from prokos.dev.state import StateDirectory
    from prokos.processes import Definition
    from prokos.resources.base import Model
    from prokos.resources.loaded import Located
    from prokos.resources.problems import Problem

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
"""Variables of our environment that every child gets; everything else is named by its resource or stays out."""

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
"""What the router needs besides, to reach a model provider."""

PDO = "pdo"
ROUTER = "router"

log = structlog.get_logger("prokos.dev")


@dataclass(frozen=True, slots=True)
class Ports:
    """Addresses (host:port) of this system's own services, chosen once."""

    pdo: str
    hints: str
    kernel: str


class EmbeddedHome:
    """A laptop as the home of a system. Implements `prokos.kernel.Home`."""

    def __init__(self, state: StateDirectory, manifests: Sequence[Path], ports: Ports) -> None:
        self.state = state
        self.manifests = [*manifests, state.manifests]
        self.ports = ports
        self.children = Children()
        self.problems: list[Problem] = []
        self.engine_environment: Mapping[str, str] = {}
        self._desired = Desired()

    # --- desired state ----------------------------------------------------------------------------------------

    def reload(self) -> list[Problem]:
        """Read the manifests. With an error in them the desired state stays what it was: all or nothing."""
        checked = check_manifests(self.manifests)
        pods = (at for at in checked.loaded.of(TaskExecutor) if at.resource.spec.scaling.pod_per_task)
        self.problems = [*checked.problems, *map(_no_pods, pods)]
        if not checked.errors:
            loaded = checked.loaded
            self._desired = Desired(
                system=next((system.spec for system in loaded.only(ProkOS)), ProkOSSpec()),
                executors={at.resource.metadata.name: located_executor(at) for at in loaded.of(TaskExecutor)},
                processes={process.name: process for process in map(_desired_process, checked.definitions)},
                routes=tuple(loaded.only(TaskRoute)),
            )
        return self.problems

    def desired(self) -> Desired:
        """The desired state as it was last read without an error."""
        return self._desired

    # --- workers ----------------------------------------------------------------------------------------------

    async def ensure_workers(self, executor: TaskExecutor) -> None:
        """One child process per worker."""
        deployment = build_worker_deployment(executor, self.engine_environment, self.ports.hints)
        wanted = {worker_name(deployment.name, index) for index in range(workers_of(executor))}
        for name in self._worker_names(deployment.name) - wanted:
            self.children.remove(name)
        for name in wanted:
            self.children.ensure(self._worker_spec(name, deployment))

    def _worker_spec(self, name: str, deployment: WorkerDeployment) -> ChildSpec:
        document = self.state.run / f"{deployment.name}-{deployment.revision}.json"
        document.write_text(deployment.document)
        ready_file = self.state.run / f"{name.replace('/', '-')}-{deployment.revision}.ready"
        work = self.state.work(deployment.name)
        work.mkdir(parents=True, exist_ok=True)
        environment = {
            **passed_on(),
            **deployment.environment,
            **{name: os.environ[name] for name in deployment.secret_environment if name in os.environ},
            "PROKOS_EXECUTOR_FILE": str(document),
            "PROKOS_WORKDIR": str(work),
            "PROKOS_READY_FILE": str(ready_file),
        }
        return ChildSpec(
            name=name,
            argv=(sys.executable, "-m", "prokos.tde"),
            environment=environment,
            directory=work,
            log_file=self.state.logs / f"{deployment.name}.log",
            revision=deployment.revision,
            ready_file=ready_file,
        )

    def _worker_names(self, executor: str) -> set[str]:
        return {name for name in self.children.names() if name.rpartition("/")[0] == executor}

    async def remove_workers(self, name: str) -> None:
        """End them; tasks they run are finished first."""
        for worker in self._worker_names(name):
            self.children.remove(worker)

    async def ensure_pdo(self) -> None:
        """The PDO as a child process, and the router as another one if a model decides routes."""
        addresses = {"PROKOS_PDO_ADDRESS": self.ports.pdo, "PROKOS_HINTS_ADDRESS": self.ports.hints}
        system = self._desired.system
        self.children.ensure(self._service(PDO, "prokos.pdo", addresses, [system.pdo, system.router.mode]))
        if system.router.mode == "llm":
            secret = system.router.api_key.env if system.router.api_key else None
            key = {secret: os.environ[secret]} if secret and secret in os.environ else {}
            environment = {**passed_on(PROXY_VARIABLES), **key}
            self.children.ensure(self._service(ROUTER, "prokos.router", environment, [system.router]))
        else:
            self.children.remove(ROUTER)

    def _service(
        self, name: str, module: str, environment: Mapping[str, str], settings: Sequence[Model | str]
    ) -> ChildSpec:
        """A child process that reads the registry; it is replaced when its settings change."""
        text = json.dumps([item if isinstance(item, str) else item.model_dump(mode="json") for item in settings])
        return ChildSpec(
            name=name,
            argv=(sys.executable, "-m", module),
            environment={
                **passed_on(),
                **self.engine_environment,
                **environment,
                "PROKOS_LOG_FORMAT": "json",
                "PROKOS_REGISTRY": str(self.state.registry),
            },
            directory=self.state.root,
            log_file=self.state.logs / f"{name}.log",
            revision=hashlib.sha256(text.encode()).hexdigest()[:12],
            grace=10,
            exclusive=True,
        )

    # --- observed state ---------------------------------------------------------------------------------------

    async def observe(self) -> Observed:
        """Look at the child processes, and ask the PDO for its beats."""
        workers = {name: self.worker_state(name) for name in self._desired.executors}
        child = self.children.get(PDO)
        pdo = WorkerState(1, int(bool(child and child.running)), child.restarts if child else 0)
        return Observed(workers, pdo, await self.beats())

    def worker_state(self, executor: str) -> WorkerState:
        """The workers of a desired executor."""
        children = [self.children.get(name) for name in self._worker_names(executor)]
        present = [child for child in children if child]
        return WorkerState(
            wanted=workers_of(self._desired.executors[executor]),
            running=sum(child.running for child in present),
            restarts=sum(child.restarts for child in present),
            message=next((child.message for child in present if child.message), ""),
        )

    async def beats(self) -> dict[int, float]:
        """Age of each shard's last beat in seconds."""
        status = await fetch_json(f"http://{self.ports.pdo}/status") or {}
        return {shard["shard"]: status["now"] - shard["at"] for shard in status.get("shards", [])}


def located_executor(at: Located[TaskExecutor]) -> TaskExecutor:
    """An executor whose `spec.python.path`, which is relative to its manifest, is absolute."""
    spec = at.resource.spec
    if spec.python is None or spec.python.path is None:
        return at.resource
    path = str((at.file.parent / spec.python.path).resolve())
    python = spec.python.model_copy(update={"path": path})
    return at.resource.model_copy(update={"spec": spec.model_copy(update={"python": python})})


def workers_of(executor: TaskExecutor) -> int:
    """Workers an executor has here, where no backlog makes more of them."""
    spec = executor.spec
    return max(spec.workers, 1) if spec.scaling.pod_per_task and spec.replicas is None else spec.workers


def _no_pods(at: Located[TaskExecutor]) -> Problem:
    message = "there are no pods here: an ordinary worker takes the tasks of this executor, one after the other"
    hint = "run code that you do not trust in a cluster"
    return at.problem(("spec", "scaling", "podPerTask"), message, hint, severity="warning")


def _desired_process(definition: Definition) -> DesiredProcess:
    resource = definition.at.resource
    return DesiredProcess(resource.metadata.name, definition.bpmn, tuple(resource.spec.job_types))


def worker_name(executor: str, index: int) -> str:
    """Name of a worker among the children."""
    return f"{executor}/{index}"


def passed_on(more: Sequence[str] = ()) -> dict[str, str]:
    """The part of our environment that children get."""
    kept = {name: os.environ[name] for name in (*PASSED_ON, *more) if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name in {"PROKOS_LOG_LEVEL", "PROKOS_CACHE"}}
    # Few arenas keep a worker small; its threads hardly allocate.
    return {**kept, "MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}


async def fetch_json(url: str, timeout: float = 2.0) -> Any:
    """GET a JSON document of one of our own services; None when it does not answer."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout)) as session,
            session.get(url) as response,
        ):
            return await response.json() if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
