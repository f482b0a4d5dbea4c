"""The status of a running system: built from what is desired, registered and observed; served on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from prokos import __version__
from prokos.dev.home import EmbeddedHome, fetch_json
from prokos.engine import EngineError
from prokos.engine.embedded_directory import lack_of_disk

if TYPE_CHECKING:
    from prokos.engine import EngineClient
    from prokos.kernel import Kernel, Observed
    from prokos.registry import Registry


async def build_status(kernel: Kernel, home: EmbeddedHome, client: EngineClient) -> dict[str, Any]:
    """Everything `prokos status` and `prokos executors` show."""
    observed = await home.observe()
    pdo = await fetch_json(f"http://{home.ports.pdo}/status") or {}
    registry = kernel.store.load()
    return {
        "version": __version__,
        "booted": kernel.steps.booted.is_set(),
        "engine": await _engine(home, client),
        "pdo": {**pdo, "running": bool(observed.pdo.running), "restarts": observed.pdo.restarts},
        "executors": _executors(registry, home, observed, pdo.get("inFlight", {})),
        "processes": _processes(registry),
        "refusals": [
            {"kind": kind, "name": name, "message": message}
            for (kind, name), message in sorted(kernel.steps.refusals.items())
        ],
        "problems": [str(problem) for problem in home.problems if problem.severity == "error"],
        "children": {name: child.pid for name in home.children.names() if (child := home.children.get(name))},
    }


async def _engine(home: EmbeddedHome, client: EngineClient) -> dict[str, Any]:
    address = client.connection.address
    try:
        topology = await client.topology()
    except EngineError as error:
        return {"address": address, "ready": False, "message": str(error)}
    embedded = home.desired().system.engine.external is None
    # A partition may be unhealthy for a while and still work; not so with a full disk.
    message = lack_of_disk(home.state.engine) if embedded and not topology.healthy else ""
    ready = topology.ready and not message
    version = topology.gateway_version
    return {"address": address, "embedded": embedded, "ready": ready, "version": version, "message": message}


def _executors(
    registry: Registry, home: EmbeddedHome, observed: Observed, in_flight: dict[str, int]
) -> list[dict[str, Any]]:
    executors = {**registry.executors, **home.desired().executors}
    rows = []
    for name, executor in sorted(executors.items()):
        state = observed.workers.get(name)
        rows.append(
            {
                "name": name,
                "type": executor.spec.type,
                "registered": name in registry.executors,
                "wanted": state.wanted if state else 0,
                "running": state.running if state else 0,
                "restarts": state.restarts if state else 0,
                "inFlight": in_flight.get(name, 0),
                "accepts": [rule.model_dump(by_alias=True, exclude_defaults=True) for rule in executor.spec.accepts],
                "message": state.message if state else "",
            }
        )
    return rows


def _processes(registry: Registry) -> list[dict[str, Any]]:
    return [
        {
            "process": process.process_id,
            "resource": process.resource,
            "version": process.latest.version if process.latest else None,
            "tasks": len(process.latest.tasks) if process.latest else 0,
            "retired": process.retired,
        }
        for process in sorted(registry.processes.values(), key=lambda process: process.process_id)
    ]


def build_app(kernel: Kernel, home: EmbeddedHome, client: EngineClient) -> web.Application:
    """The kernel's HTTP API: `/healthz` and `/status`."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def status(_: web.Request) -> web.Response:
        return web.json_response(await build_status(kernel, home, client))

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/status", status)])
    return app
