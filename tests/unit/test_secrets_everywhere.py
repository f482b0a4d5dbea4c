"""Secrets of every type of executor: planted from every source, used, and looked for in all that comes out.

What the executors talk to sends the secret back, in results, in messages and in business errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog
import trustme
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from prokos.resources import TaskExecutor
from prokos.tde import BusinessError, Context, Environment, Executor
from prokos.tde.redaction import Redactor
from prokos.tde.secrets import resolve_secrets
from prokos.tde.types import executor_class
from prokos.tde.worker import TdeWorker
from unit.fake_engine import FakeEngine
from unit.grpc_service import payments_server
from unit.tde_bench import PARENT, TDE, dispatched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

PLANTED = 'correct-"horse"\\battery'
PIECES = ("horse", "battery")
SECRET = {"name": "planted"}


def sources(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """The secret as each of its sources gives it."""
    (tmp_path / "file").write_text(PLANTED + "\n")
    return {
        "env": {**SECRET, "env": "PLANTED"},
        "file": {**SECRET, "file": str(tmp_path / "file")},
        "kubernetes": {**SECRET, "secretKeyRef": {"name": "any", "key": "key"}},
    }


class Echo(BaseHTTPRequestHandler):
    """Sends back what it was sent, secrets included: as a result, a failure or a business error."""

    def do_GET(self) -> None:
        self._answer(200, {})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"])).decode()
        said = {"headers": dict(self.headers), "content": content, "kept": self.server.kept}  # type: ignore[attr-defined]
        way = json.loads(content).get("input", json.loads(content))["way"]
        if self.path == "/execute":
            answer = {
                "result": {"output": said},
                "failure": {"failure": {"message": json.dumps(said), "retryable": False}},
                "error": {"error": {"code": "C", "message": json.dumps(said), "variables": said}},
                "code": {"error": {"code": json.dumps(said)}},
            }
            self._answer(200, answer[way])
        else:
            self._answer({"result": 200, "failure": 400, "error": 409, "code": 409}[way], said)

    def _answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        # What a container got as its environment.
        server.kept = PLANTED  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


class Leaky(Executor[dict[str, Any], dict[str, Any]]):
    """An author's code that takes no care."""

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        planted = self.environment.secrets["planted"]
        context.log.info("I have it", planted=planted, also={"nested": [planted]})
        match data["way"]:
            case "result":
                return {planted: [planted]}
            case "failure":
                raise ValueError(f"{planted!r} is no number")
            case "error":
                raise BusinessError("C", planted, {"planted": planted})
            case _:
                raise BusinessError(planted)


SCRIPT = """
import os, sys
planted = os.environ["PLANTED"] + open(os.environ["PROKOS_SECRETS_DIR"] + "/planted").read()
def main(input):
    print(planted)
    match input["way"]:
        case "result": return {"planted": planted}
        case "failure": raise FatalFailure(planted)
        case "error": raise BusinessError("C", planted, {"planted": planted})
        case _: raise BusinessError(planted)
"""


@contextlib.asynccontextmanager
async def settings(kind: str, way: str, port: int, tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    """The block of settings of a type, with the secret wherever that type takes one."""
    match kind:
        case "script":
            script = {"language": "python", "source": SCRIPT}
            yield {**script, "secretEnv": {"PLANTED": "planted"}, "secretFiles": {"planted": "planted"}}
        case "http bearer" | "http api key":
            key = {"apiKey": {"header": "X-K", "secret": "planted"}}
            auth = {"bearer": "planted"} if kind == "http bearer" else key
            rules = [{"status": "409", "outcome": "error", "code": "C"}]
            url = f"http://127.0.0.1:{port}/echo"
            yield {
                "method": "POST", "url": url, "auth": auth, "allowedNetworks": ["127.0.0.1/32"], "outcomes": rules,
            }  # fmt: skip
        case "grpc":
            authority = trustme.CA()
            certificate = authority.issue_cert("shop.example")
            chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
            credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
            authority.cert_pem.write_to_path(str(tmp_path / "ca"))
            async with payments_server(credentials) as (_, address):
                yield {
                    "address": address,
                    "method": "shop.Payments/Pay",
                    "tls": {"caSecret": "ca", "serverName": "shop.example"},
                    "secretMetadata": {"x-k": "planted"},
                    "allowedNetworks": ["127.0.0.1/32"],
                    "outcomes": [{"status": "NOT_FOUND", "outcome": "error", "code": "C"}],
                }
        case "sql":
            (tmp_path / PIECES[0]).mkdir()
            sqlite3.connect(tmp_path / PIECES[0] / f"{PIECES[1]}.db").close()
            statements = {
                "result": "SELECT :way AS way",
                "failure": "SELECT no_such_function()",
                "error": "SELECT * FROM no_such_table",
                "code": "ATTACH 'file:/none/at/all' AS other",
            }
            yield {"urlSecret": "planted", "statement": statements[way]}
        case "container":
            yield {"image": "any", "port": port, "secretEnv": {"PLANTED": "planted"}}
        case "python":
            yield {"executor": f"{__name__}:Leaky"}


async def everything(kind: str, source: dict[str, Any], way: str, port: int, tmp_path: Path) -> str:
    """All that one task of an executor lets out: commands to the engine, hints, log lines, metrics."""
    kept = PLANTED if kind != "sql" else f"sqlite:///{tmp_path}/{PIECES[0]}/{PIECES[1]}.db"
    (tmp_path / "file").write_text(kept)
    (tmp_path / "planted").write_text(kept)
    (tmp_path / "ca").write_text("")
    typed = kind.split(maxsplit=1)[0]
    async with settings(kind, way, port, tmp_path) as block:
        spec = {
            "type": typed,
            typed: block,
            "secrets": [source, {"name": "ca", "file": str(tmp_path / "ca")}],
            "backoff": {"jitter": 0},
            "timeout": "20s",
        }
        resource = TaskExecutor.model_validate({"metadata": {"name": "payer"}, "spec": spec})
        secrets = resolve_secrets(resource.spec.secrets, {"PLANTED": kept}, tmp_path)
        environment = Environment("payer", tmp_path, 4, secrets)
        executor = executor_class(typed)(resource.spec.settings, environment)
        engine, sent = FakeEngine(), []
        hints = type("Hints", (), {"send": lambda _, hint: sent.append(hint)})()
        worker = TdeWorker(engine, resource, executor, worker="test", hints=hints, single_use=True)  # type: ignore[arg-type]
        statuses = {"result": "echo", "failure": "echo:INTERNAL", "error": "echo:NOT_FOUND", "code": "echo:UNAVAILABLE"}
        data = {"orderId": statuses[way]} if typed == "grpc" else {"way": way}
        engine.offer(dispatched(data))
        with capture_logs() as logs:
            await asyncio.wait_for(worker.run(asyncio.Event(), 5), 60)
    render = structlog.processors.JSONRenderer(ensure_ascii=False)
    clear = Redactor(secrets, secrets.names).text  # as `configure_logging` does with each line
    lines = "\n".join(clear(str(render(None, "info", entry))) for entry in logs)
    metrics = generate_latest(worker.metrics._registry).decode()
    assert {command[1] for command in engine.reports} == {PARENT, TDE}
    assert "prokos_tde_ended_total" in metrics
    return "\n".join([repr(engine.commands), json.dumps(engine.commands), repr(sent), lines, metrics])


KINDS = ["script", "http bearer", "http api key", "grpc", "sql", "container", "python"]


@pytest.mark.parametrize("way", ["result", "failure", "error", "code"])
@pytest.mark.parametrize("kind", KINDS)
async def test_no_secret_comes_out(kind: str, way: str, echo: int, tmp_path: Path) -> None:
    names = list(sources(tmp_path))
    source = sources(tmp_path)[names[(KINDS.index(kind) + len(way)) % len(names)]]
    out = await everything(kind, source, way, echo, tmp_path)
    assert [piece for piece in PIECES if piece in out] == []
    # It was there, and was replaced or refused; a database's URL is only used.
    assert kind == "sql" or "<secret planted>" in out or "value of secret 'planted'" in out
