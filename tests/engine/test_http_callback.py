"""Long calls on a real engine: a service answers 202, its result comes as a message, and the task goes on."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from engine.conftest import Broker
from engine.devsystem import PROKOS, DevSystem, wait_until
from engine.samples import calling, one_task, write

SECRET = "PLANTED-callback-secret"


@dataclass
class LongService:
    """Answers 202 and keeps the callback's address of each order; what it is told to do at once, it does before."""

    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    at_once: str | None = None
    """Where to send the result before the answer."""

    def token(self, order: str, call: int = 0) -> str:
        """The token of an order's nth call."""
        wait_until(
            lambda: len([one for one in self.asked if one["order"] == order]) > call,
            timeout=60,
            describe=lambda: f"call {call} of order {order} did not come: {self.asked}",
        )
        return [one for one in self.asked if one["order"] == order][call]["token"]

    def calls(self, order: str) -> list[dict[str, str]]:
        return [one for one in self.asked if one["order"] == order]


@pytest.fixture(scope="module")
def service() -> Iterator[LongService]:
    service = LongService()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            token = body["callback"]
            service.asked.append({"order": body["order"], "token": token, "key": self.headers["Idempotency-Key"]})
            if service.at_once:
                post(f"{service.at_once}/{token}", {"state": "done", "total": 7})
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield service
    server.shutdown()
    server.server_close()
    thread.join()


def post(url: str, body: Any) -> int:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return int(response.status)


def executor(name: str, service: LongService, timeout: str = "1h", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "prokos.io/v1alpha1",
        "kind": "TaskExecutor",
        "metadata": {"name": name},
        "spec": {
            "type": "http",
            "description": "Asks a service that takes its time.",
            "accepts": [{"jobType": name}],
            "secrets": [{"name": "callbacks", "env": "CALLBACK_SECRET"}],
            "backoff": {"initial": "100ms"},
            "http": {
                "method": "POST",
                "url": f"{service.url}/orders",
                "allowedNetworks": ["127.0.0.0/8"],
                "callback": {"secret": "callbacks", "header": "", "field": "callback", "timeout": timeout},
                "outcomes": [
                    {
                        "status": "2xx",
                        "where": {"state": "refused"},
                        "outcome": "error",
                        "code": "REFUSED",
                        "messageFrom": "reason",
                    }
                ],
            },
            **spec,
        },
    }


@pytest.fixture(scope="module")
def dev(engine_address: str, service: LongService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSystem]:
    directory = tmp_path_factory.mktemp("callbacks")
    mapped = {
        "inputs": [{"source": "=order", "target": "order"}],
        "outputs": [{"source": "=total * 2", "target": "double"}],
    }
    manifests = write(
        directory / "manifests",
        processes={
            "cb-plain": one_task("cb-plain", "cb-plain", error="REFUSED"),
            "cb-mapped": one_task("cb-mapped", "cb-mapped"),
            "cb-short": one_task("cb-short", "cb-short", retries=2),
            "cb-itself": calling("cb-itself", "cb-plain"),
        },
        resources=[
            executor("cb-plain", service),
            executor("cb-mapped", service, **mapped),
            executor("cb-short", service, "1500ms"),
        ],
    )
    with DevSystem(directory, [manifests], engine=engine_address, environment={"CALLBACK_SECRET": SECRET}) as system:
        yield system


@pytest.fixture(scope="module")
def receiver(dev: DevSystem) -> Iterator[str]:
    """`prokos receive`; its address."""
    argv = [*PROKOS, "receive", "--listen", "127.0.0.1:0", "--secret-env", "CALLBACK_SECRET"]
    with subprocess.Popen(argv, env=dev.environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "takes callbacks at http://" in line, line
        yield line.split()[-1].removesuffix("/TOKEN")
        process.terminate()
        assert process.wait(60) == 0


def start(dev: DevSystem, process: str, order: str, **variables: Any) -> str:
    """Start an instance; returns its key."""
    arguments = [f"--var={name}={json.dumps(value)}" for name, value in {"order": order, **variables}.items()]
    return str(dev.json("run", process, "--no-wait", *arguments)["instance"])


def runs_to_its_end(dev: DevSystem, process: str, order: str) -> tuple[threading.Thread, dict[str, Any]]:
    """Run an instance in a thread of its own; its variables are there when the thread has ended."""
    variables: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: variables.update(dev.run_process(process, {"order": order})))
    thread.start()
    return thread, variables


def test_a_result_from_the_command_line_completes_the_task(dev: DevSystem, service: LongService) -> None:
    thread, variables = runs_to_its_end(dev, "cb-plain", "A-1")
    token = service.token("A-1")
    dev.wait_for_task(process="cb-plain", state="awaiting")
    dev.run("callback", token, "--result", '{"state": "done", "total": 5}')
    thread.join(60)
    assert variables["total"] == 5
    task = dev.wait_for_task(process="cb-plain", state="completed")
    assert token.startswith(task["job"] + "-")
    assert service.calls("A-1")[0]["key"] == task["job"]
    assert len(service.calls("A-1")) == 1


def test_a_result_over_http_is_judged_and_mapped(dev: DevSystem, service: LongService, receiver: str) -> None:
    thread, variables = runs_to_its_end(dev, "cb-mapped", "A-2")
    assert post(f"{receiver}/{service.token('A-2')}", {"total": 21}) == 202
    thread.join(60)
    assert variables["double"] == 42


def test_a_refusal_is_a_business_error(dev: DevSystem, service: LongService, receiver: str) -> None:
    for order, path, body in (
        ("A-3", "", {"state": "refused", "reason": "sold out"}),
        ("A-4", "/error", {"code": "REFUSED", "variables": {"reason": "sold out"}}),
    ):
        thread, variables = runs_to_its_end(dev, "cb-plain", order)
        assert post(f"{receiver}/{service.token(order)}{path}", body) == 202
        thread.join(60)
        assert variables["caught"] == "sold out"


def test_a_result_that_comes_before_the_answer_counts(dev: DevSystem, service: LongService, receiver: str) -> None:
    service.at_once = receiver
    try:
        variables = dev.run_process("cb-plain", {"order": "A-5"})
    finally:
        service.at_once = None
    assert variables["total"] == 7


def test_a_failure_is_the_attempts_and_the_next_one_asks_again(
    dev: DevSystem, service: LongService, receiver: str
) -> None:
    thread, variables = runs_to_its_end(dev, "cb-plain", "A-6")
    first = service.token("A-6")
    post(f"{receiver}/{first}/failure", {"message": "the printer is on fire"})
    assert service.token("A-6", call=1) == first
    post(f"{receiver}/{first}", {"total": 6})
    thread.join(60)
    assert variables["total"] == 6
    assert len({call["key"] for call in service.calls("A-6")}) == 1


def test_a_callback_that_does_not_come_uses_up_the_attempts(dev: DevSystem, service: LongService) -> None:
    failed = dev.run("run", "cb-short", "--var", "order=A-7", check=False)
    assert failed.returncode == 1
    assert "no callback came within 1.5 s" in failed.stderr
    assert len(service.calls("A-7")) == 2


def test_waiting_longer_than_a_lease_calls_once(
    dev: DevSystem, service: LongService, receiver: str, broker: Broker
) -> None:
    thread, variables = runs_to_its_end(dev, "cb-plain", "A-8")
    token = service.token("A-8")
    job = dev.wait_for_task(job=token.rpartition("-")[0], state="awaiting")["job"]
    scanned = dev.pdo("/status")["counts"]["scanned"]
    broker.advance(300)  # ten leases of the PDO
    # What another task takes from start to end, a second dispatch of this one would have taken, too.
    other, _ = runs_to_its_end(dev, "cb-plain", "A-9")
    post(f"{receiver}/{service.token('A-9')}", {"total": 9})
    other.join(90)
    assert dev.wait_for_task(job=job)["state"] == "awaiting"
    assert dev.pdo("/status")["counts"]["scanned"] == scanned + 1
    assert post(f"{receiver}/{token}", {"total": 8}) == 202
    thread.join(60)
    assert variables["total"] == 8
    assert len(service.calls("A-8")) == 1


def test_a_wait_outlives_worker_and_pdo(dev: DevSystem, service: LongService, receiver: str) -> None:
    thread, variables = runs_to_its_end(dev, "cb-plain", "A-13")
    token = service.token("A-13")
    dev.wait_for_task(job=token.rpartition("-")[0], state="awaiting")
    killed = [process for process in dev.family() if {"prokos.tde", "prokos.pdo"} & set(process.cmdline())]
    assert len(killed) == 4
    for process in killed:
        process.kill()
    assert post(f"{receiver}/{token}", {"total": 13}) == 202
    thread.join(90)
    assert variables["total"] == 13
    assert len(service.calls("A-13")) == 1


def test_a_callback_for_a_cancelled_task_changes_nothing(dev: DevSystem, service: LongService, receiver: str) -> None:
    instance = start(dev, "cb-plain", "A-10")
    token = service.token("A-10")
    dev.wait_for_task(instance=instance, state="awaiting")
    dev.run("cancel", instance)
    assert post(f"{receiver}/{token}", {"total": 1}) == 202
    assert "the task does not wait" in dev.wait_for_task(instance=instance, state="gone")["message"]


def test_a_tde_called_by_a_process_says_that_it_cannot_wait(dev: DevSystem, service: LongService) -> None:
    start(dev, "cb-itself", "A-11")
    log = dev.state / "logs" / "cb-plain.log"
    wait_until(lambda: "cannot wait for a callback" in log.read_text(), timeout=60, describe=dev.logs)
    assert service.calls("A-11") == []


def test_a_forged_token_reaches_nobody(dev: DevSystem, service: LongService, receiver: str) -> None:
    instance = start(dev, "cb-plain", "A-12")
    token = service.token("A-12")
    task = dev.wait_for_task(instance=instance, state="awaiting")
    for forged in (f"{task['job']}-{'0' * 32}", task["job"], token[:-1]):
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(f"{receiver}/{forged}", {"total": 1})
        assert refused.value.code == 404
    wrong = dev.run("callback", task["job"], "--result", "{}", check=False)
    assert wrong.returncode == 2
    assert "no token of a callback" in wrong.stderr
    assert dev.wait_for_task(instance=instance)["state"] == "awaiting"
    dev.run("cancel", instance)


def test_the_secret_comes_out_nowhere(dev: DevSystem, service: LongService) -> None:
    logs = [file.read_text(errors="replace") for file in Path(dev.state, "logs").iterdir() if file.is_file()]
    for text in (*logs, dev.output, json.dumps(dev.tasks()), json.dumps(service.asked)):
        assert SECRET not in text
