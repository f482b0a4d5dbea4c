"""Bad input ends where it belongs, with words that help: nothing hangs, no worker goes down, no task is left behind."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from pyzeebe.proto import gateway_pb2 as pb
from pyzeebe.proto.gateway_pb2_grpc import GatewayStub

from engine.devsystem import DevSystem, wait_until
from engine.samples import one_task, python_executor, write

ODD_PROCESS = "Ünïcode-процесс_注文." + "x" * 230
ODD_ELEMENT = "Aufgabe-задача_任務." + "y" * 230
ODD_NAMES = {
    "with a space": 1,
    "ключ-ß/\\\"'": "значение \u2028 \x7f \U0001f600",
    "a.b": [1],
    "v" * 300: {"": None},
    "": 0,
}

LONG_PROCESS, LONG_ELEMENT = "p" * 30_000, "e" * 30_000
"""Ids far beyond what people write; `test_bad_manifests.py` has those that are refused."""

LONGEST_NAME = 50_000
"""Characters of a variable's name, above which Camunda 8.6.0 refuses it."""

PYTHON = {
    "echo": "def main(input):\n    return {'seen': input}\n",
    "size": "def main(input):\n    return {'size': len(input['blob'])}\n",
    "flood": """\
        import sys
        def main(input):
            line = "x" * 999 + "\\n"
            for _ in range(input["lines"]):
                sys.stdout.write(line)
            sys.stderr.write("y" * 1_000_000)
            return {"printed": True}
        """,
    "forks": """\
        import os, pathlib, time
        def main(input):
            pids = pathlib.Path(input["pids"])
            for number in range(20):
                if os.fork() == 0:
                    os.setsid()
                    if os.fork():
                        os._exit(0)
                    with pids.open("a") as file:
                        file.write(f"{os.getpid()}\\n")
                    while True:
                        time.sleep(60)
            while not pids.exists() or len(pids.read_text().split()) < 20:
                time.sleep(0.01)
            return {"forked": 20}
        """,
    "large": "def main(input):\n    return {'blob': 'x' * input['bytes']}\n",
    "deep": """\
        import os, pathlib
        def main(input):
            levels = input["levels"]
            text = '{"deep":' + "[" * levels + "]" * levels + "}"
            pathlib.Path(os.environ["PROKOS_OUTPUT"]).write_text(text)
            os._exit(0)
        """,
    "long-name": "def main(input):\n    return {'v' * input['length']: 1}\n",
    "item": "def main(input):\n    return {'square': input['item'] ** 2}\n",
}


JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Garbage(socketserver.BaseRequestHandler):
    """Answers `/hang` never, and anything else with what is no HTTP."""

    def handle(self) -> None:
        request = self.request.recv(65536)
        path = request.split()[1]
        if path.startswith(b"/hang"):
            self.request.recv(1)
        elif path.startswith(b"/half"):
            self.request.sendall(JSON_HEAD + b"Content-Length: 99\r\n\r\n{")
        elif path.startswith(b"/no-json"):
            self.request.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n\xff{]"
            )
        elif path.startswith(b"/endless"):
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            try:
                while True:
                    self.request.sendall(b"x" * 65536)
            except OSError:
                pass
        else:
            self.request.sendall(bytes(range(256)) * 40)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@pytest.fixture(scope="module")
def garbage() -> Iterator[str]:
    """Base URL of a server that misbehaves."""
    with Server(("127.0.0.1", 0), Garbage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def executor(name: str, kind: str, settings: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "prokos.io/v1alpha1",
        "kind": "TaskExecutor",
        "metadata": {"name": name},
        "spec": {"type": kind, "accepts": [{"jobType": name}], kind: settings, "backoff": {"initial": "100ms"}, **spec},
    }


@pytest.fixture(scope="module")
def dev(engine_address: str, garbage: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSystem]:
    directory = tmp_path_factory.mktemp("bad")
    resources = [
        python_executor(f"bad-{name}", source, job_type=f"bad-{name}", backoff={"initial": "100ms"})
        for name, source in PYTHON.items()
    ]
    for resource in resources:
        if resource["metadata"]["name"] == "bad-large":
            resource["spec"]["script"]["maxOutputBytes"] = 10_000_000
    resources[0]["spec"]["accepts"] += [{"process": ODD_PROCESS}, {"jobType": "bad-long"}]
    mapped = python_executor(
        "bad-mapped", PYTHON["echo"], job_type="bad-mapped", inputs=[{"source": "=n", "target": "n"}]
    )
    computed = python_executor(
        "bad-computed", PYTHON["echo"], job_type="bad-computed", inputs=[{"source": "=[n][1]", "target": "n"}]
    )
    no_json = executor("bad-no-json", "script", {"language": "shell", "source": "echo 'no json' > $PROKOS_OUTPUT"})
    loopback = {"url": garbage + "/{path}", "allowedNetworks": ["127.0.0.0/8"]}
    http = executor("bad-http", "http", loopback, timeout="60s")
    hanging = executor("bad-hang", "http", loopback, timeout="3s")
    unmapped = python_executor(
        "bad-unmapped",
        "def main(input):\n    return {'n': input['n']}\n",
        job_type="bad-unmapped",
        outputs=[{"source": "=n + 0", "target": "result"}],
    )
    # No process of the manifests has such tasks; what these two say contradicts itself for some process of others.
    claims = [
        python_executor("bad-claim-type", PYTHON["echo"], job_type="bad-claimed"),
        python_executor("bad-claim-process", PYTHON["echo"], accepts=[{"process": "bad-foreign"}]),
    ]
    system = {"engine": {"external": {"address": engine_address}}, "pdo": {"include": ["bad-claimed", "bad-named"]}}
    prokos = {"apiVersion": "prokos.io/v1alpha1", "kind": "ProkOS", "metadata": {"name": "test"}, "spec": system}
    sql = executor("bad-sql", "sql", {"url": f"sqlite:///{directory}/x.db", "statement": "SELECT * FROM nowhere"})
    names = [*PYTHON, "no-json", "http", "hang", "sql", "mapped", "computed", "unmapped"]
    processes = {f"bad-{name}": one_task(f"bad-{name}", f"bad-{name}", retries=2) for name in names}
    processes["odd"] = one_task(ODD_PROCESS, "bad-odd").replace('"Task"', f'"{ODD_ELEMENT}"')
    processes["long"] = one_task(LONG_PROCESS, "bad-long").replace('"Task"', f'"{LONG_ELEMENT}"')
    processes["bad-many"] = many("bad-many", "bad-item")
    resources += [mapped, computed, unmapped, *claims, no_json, http, hanging, sql, prokos]
    manifests = write(directory / "manifests", processes=processes, resources=resources)
    with DevSystem(directory, [manifests]) as system:
        yield system
        status = system.json("status")
        assert {worker["name"]: worker["restarts"] for worker in status["executors"] if worker["restarts"]} == {}
        assert status["pdo"]["restarts"] == 0
        wait_until(lambda: left(system) == [], timeout=60, describe=lambda: f"still in flight: {left(system)}")


def left(dev: DevSystem) -> list[dict[str, Any]]:
    """Tasks that have not ended and are not with a person."""
    ended = {"completed", "error", "incident", "refused", "gone", "ended"}
    return [task for task in dev.tasks() if task["state"] not in ended]


def many(process: str, job_type: str) -> str:
    """A process whose one task runs in parallel for each of `items`."""
    loop = (
        '<bpmn:multiInstanceLoopCharacteristics id="Loop"><bpmn:extensionElements><zeebe:loopCharacteristics '
        'inputCollection="=items" inputElement="item" outputCollection="squares" outputElement="=square" />'
        "</bpmn:extensionElements></bpmn:multiInstanceLoopCharacteristics></bpmn:serviceTask>"
    )
    return one_task(process, job_type).replace("</bpmn:serviceTask>", loop)


def run_file(dev: DevSystem, tmp_path: Path, process: str, text: str, *arguments: str) -> Any:
    """`prokos run` with variables as JSON text in a file."""
    file = tmp_path / "variables.json"
    file.write_text(text)
    return dev.run("run", process, "--vars", str(file), "--output", "json", *arguments, check=False)


def test_a_script_that_prints_100_mb_completes_and_its_log_stays_small(dev: DevSystem) -> None:
    assert dev.run_process("bad-flood", {"lines": 100_000})["printed"] is True
    assert (dev.state / "logs" / "bad-flood.log").stat().st_size < 3_000_000


def test_children_that_a_script_leaves_behind_end_with_it(dev: DevSystem, tmp_path: Path) -> None:
    assert dev.run_process("bad-forks", {"pids": str(tmp_path / "pids")})["forked"] == 20
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), timeout=10, describe=lambda: f"{pids} are left")


def test_a_result_that_is_no_json_is_an_incident(dev: DevSystem) -> None:
    assert "$PROKOS_OUTPUT does not hold JSON" in dev.run("run", "bad-no-json", check=False).stderr


@pytest.mark.parametrize("size", [3_000_000, 5_000_000])
def test_a_result_beyond_the_engines_limit_is_an_incident_that_names_the_limit(dev: DevSystem, size: int) -> None:
    failed = dev.run("run", "bad-large", "--var", f"bytes={size}", check=False)
    assert failed.returncode == 1
    assert "has an incident at Task" in failed.stderr
    assert "about 2 MB" in failed.stderr


@pytest.mark.parametrize(
    ("process", "path", "message"),
    [
        ("bad-hang", "hang", "spec.timeout"),
        ("bad-http", "garbage", "RemoteProtocolError"),
        ("bad-http", "half", "RemoteProtocolError"),
        ("bad-http", "no-json", "is no JSON"),
        ("bad-http", "endless", "maxResponseBytes"),
    ],
)
def test_an_http_service_that_misbehaves_is_an_incident_that_says_how(
    dev: DevSystem, process: str, path: str, message: str
) -> None:
    failed = dev.run("run", process, "--var", f"path={path}", check=False)
    assert failed.returncode == 1
    assert message in failed.stderr


def test_a_statement_that_the_database_refuses_is_an_incident_with_its_words(dev: DevSystem) -> None:
    failed = dev.run("run", "bad-sql", check=False)
    assert failed.returncode == 1
    assert "no such table: nowhere" in failed.stderr


def test_variables_of_1_mb_reach_the_executor(dev: DevSystem, tmp_path: Path) -> None:
    done = run_file(dev, tmp_path, "bad-size", json.dumps({"blob": "x" * 1_000_000}))
    assert json.loads(done.stdout)["variables"]["size"] == 1_000_000


@pytest.mark.parametrize(
    ("size", "place"),
    [
        (2_000_000, "has an incident at Task: the task's variables (2000011 characters)"),
        (5_000_000, "prokos: too large"),
    ],
)
def test_variables_beyond_the_engines_limit_are_refused_where_they_do_not_fit(
    dev: DevSystem, tmp_path: Path, size: int, place: str
) -> None:
    failed = run_file(dev, tmp_path, "bad-size", json.dumps({"blob": "x" * size}))
    assert failed.returncode == 1
    assert place in failed.stderr
    assert "about 2 MB" in failed.stderr


def test_200_parallel_tasks_of_one_instance_all_end(dev: DevSystem, tmp_path: Path) -> None:
    done = run_file(dev, tmp_path, "bad-many", json.dumps({"items": list(range(200))}))
    assert json.loads(done.stdout)["variables"]["squares"] == [number**2 for number in range(200)]


def test_odd_ids_and_variable_names_pass_unchanged(dev: DevSystem, tmp_path: Path) -> None:
    done = run_file(dev, tmp_path, ODD_PROCESS, json.dumps(ODD_NAMES))
    print(done.stderr)
    assert json.loads(done.stdout)["variables"]["seen"] == ODD_NAMES
    assert dev.wait_for_task(process=ODD_PROCESS, state="completed")["element"] == ODD_ELEMENT


def test_very_long_ids_and_names_as_long_as_the_engine_takes_them_pass(dev: DevSystem, tmp_path: Path) -> None:
    variables = {"v" * LONGEST_NAME: 1}
    done = run_file(dev, tmp_path, LONG_PROCESS, json.dumps(variables))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["variables"]["seen"] == variables
    assert dev.wait_for_task(process=LONG_PROCESS, state="completed")["element"] == LONG_ELEMENT


def test_names_that_are_longer_are_refused_by_the_command_and_in_a_result(dev: DevSystem, tmp_path: Path) -> None:
    refused = run_file(dev, tmp_path, "bad-echo", json.dumps({"v" * (LONGEST_NAME + 1): 1}))
    assert refused.returncode == 1
    assert f"longer than {LONGEST_NAME}" in refused.stderr
    failed = dev.run("run", "bad-long-name", "--var", f"length={LONGEST_NAME + 1}", check=False)
    assert failed.returncode == 1
    assert "has an incident at Task" in failed.stderr
    assert f"longer than {LONGEST_NAME}" in failed.stderr


@pytest.mark.parametrize("process", ["bad-echo", "bad-mapped"])
def test_json_of_100_levels_passes(dev: DevSystem, tmp_path: Path, process: str) -> None:
    text = '{"n":' + nested(100) + "}"
    done = run_file(dev, tmp_path, process, text)
    assert json.loads(done.stdout)["variables"]["seen"] == json.loads(text)


def test_variables_of_5000_levels_are_refused_by_the_command(dev: DevSystem, tmp_path: Path) -> None:
    failed = run_file(dev, tmp_path, "bad-echo", '{"n":' + nested(5000) + "}")
    assert failed.returncode == 2
    assert "nested too deeply" in " ".join(failed.stderr.split())
    assert dev.run("run", "bad-echo", "--var", f"n={nested(5000)}", check=False).returncode == 2


def test_variables_as_deep_as_the_engine_takes_them_from_others_do_not_block_the_worker(
    dev: DevSystem, engine_address: str
) -> None:
    with grpc.insecure_channel(engine_address) as channel:
        request = pb.CreateProcessInstanceRequest(
            bpmnProcessId="bad-echo", version=-1, variables='{"n":' + nested(990) + "}"
        )
        instance = GatewayStub(channel).CreateProcessInstance(request).processInstanceKey
    assert "json" in dev.wait_for_task(instance=str(instance), state="incident")["message"]


@pytest.mark.parametrize("levels", [600, 5000])
def test_a_result_that_is_nested_too_deeply_is_an_incident(dev: DevSystem, levels: int) -> None:
    failed = dev.run("run", "bad-deep", "--var", f"levels={levels}", check=False)
    assert failed.returncode == 1
    assert "nested too deeply" in failed.stderr


@pytest.mark.parametrize(
    ("process", "largest"),
    [
        ("bad-echo", "18446744073709551615, 1e300"),
        ("bad-mapped", "18446744073709551615, 1e300"),
        ("bad-computed", 2**63 - 1),
    ],
)
def test_numbers_keep_what_the_engine_can_store(
    dev: DevSystem, tmp_path: Path, process: str, largest: int | str
) -> None:
    numbers = f"[-9223372036854775808, 9007199254740993, 0.1, 1e-300, 123456789.12345679, {largest}]"
    done = run_file(dev, tmp_path, process, f'{{"n": {numbers}}}')
    assert json.loads(done.stdout)["variables"]["seen"]["n"] == json.loads(numbers)


@pytest.mark.parametrize("process", ["bad-computed", "bad-unmapped"])
@pytest.mark.parametrize("number", [str(2**63), "1e19", "-1e300"])
def test_numbers_that_a_mapping_would_change_are_an_incident_that_names_them(
    dev: DevSystem, tmp_path: Path, process: str, number: str
) -> None:
    failed = run_file(dev, tmp_path, process, f'{{"n": {number}}}')
    assert failed.returncode == 1
    assert "FEEL would change" in failed.stderr
    assert "number n:" in failed.stderr


@pytest.mark.parametrize("number", [str(2**64), "1" + "0" * 400, "1e400", "NaN"])
def test_numbers_that_the_engine_cannot_store_are_refused(dev: DevSystem, tmp_path: Path, number: str) -> None:
    failed = run_file(dev, tmp_path, "bad-echo", f'{{"n": {number}}}')
    assert failed.returncode in {1, 2}
    assert "2^64-1" in failed.stderr or "not JSON compliant" in failed.stderr


def nested(levels: int) -> str:
    """Arrays in arrays, as JSON text."""
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("job_type", "headers", "words"),
    [
        ("bad-claimed", {}, ["bad-claim-type", "bad-claim-process"]),
        ("bad-named", {"prokos.io/executor": "nobody"}, ["nobody"]),
    ],
)
def test_a_foreign_task_that_two_executors_claim_or_that_names_none_is_an_incident(
    dev: DevSystem, engine_address: str, job_type: str, headers: dict[str, str], words: list[str]
) -> None:
    definition = one_task("bad-foreign", job_type, headers=headers).encode()
    with grpc.insecure_channel(engine_address) as channel:
        gateway = GatewayStub(channel)
        resource = pb.Resource(name="bad-foreign.bpmn", content=definition)
        gateway.DeployResource(pb.DeployResourceRequest(resources=[resource]))
        request = pb.CreateProcessInstanceRequest(bpmnProcessId="bad-foreign", version=-1)
        instance = gateway.CreateProcessInstance(request).processInstanceKey
    refused = dev.wait_for_task(instance=str(instance), state="refused")
    for word in words:
        assert word in refused["message"]
