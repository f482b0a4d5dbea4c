"""Tasks that no rule claims: routed once by a model behind a real HTTP endpoint, and remembered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from engine.conftest import TEST_ENGINE
from engine.devsystem import DevSystem
from engine.samples import one_task, python_executor, write

KEY = "key-that-must-not-appear"

UNANSWERED = "refused" if TEST_ENGINE else "waiting"
"""A task whose route the model did not give. The in-memory engine drops the variables that a job fails with:
there nothing says how long to wait, and the attempts follow each other."""


class Model(ThreadingHTTPServer):
    """Speaks the OpenAI chat completions protocol; chooses by what it is told for a task's name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Any] = {}
        self.questions: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def asked(self, name: str) -> int:
        return sum(question["task"]["name"] == name for question in self.questions)


class Handler(BaseHTTPRequestHandler):
    server: Model

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == f"Bearer {KEY}"
        question = json.loads(request["messages"][-1]["content"])
        self.server.questions.append(question)
        answer = self.server.answers[question["task"]["name"]]
        if answer == "down":
            self.send_error(500, "out of order")
            return
        content = answer if isinstance(answer, str) else json.dumps(answer)
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "test",
            "choices": [choice],
            "usage": usage,
        }
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    server = Model()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def dev(engine_address: str, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSystem]:
    directory = tmp_path_factory.mktemp("llm")
    names = ["invoice", "unclear", "nonsense", "outside", "broken"]
    executors = [
        python_executor("llm-mailer", "def main(input):\n    return {'by': 'mailer'}\n"),
        python_executor("llm-archive", "def main(input):\n    return {'by': 'archive'}\n"),
    ]
    system = {
        "apiVersion": "prokos.io/v1alpha1",
        "kind": "ProkOS",
        "metadata": {"name": "llm"},
        "spec": {
            "engine": {"external": {"address": engine_address}},
            "router": {
                "mode": "llm",
                "model": "openai/test",
                "endpoint": model.url,
                "apiKey": {"env": "TEST_MODEL_KEY"},
                "timeout": "30s",
            },
        },
    }
    processes = {f"llm-{name}": one_task(f"llm-{name}", f"llm-{name}", name=name, retries=2) for name in names}
    manifests = write(directory / "manifests", processes=processes, resources=[*executors, system])
    with DevSystem(directory, [manifests], environment={"TEST_MODEL_KEY": KEY}) as started:
        yield started


def test_the_model_is_asked_once_per_element_and_the_route_is_kept(dev: DevSystem, model: Model) -> None:
    model.answers["invoice"] = {"executor": "llm-mailer", "confidence": 0.9, "reason": "it sends letters"}
    assert dev.run_process("llm-invoice", {"secretOfTheCustomer": "s3cret"})["by"] == "mailer"
    assert dev.run_process("llm-invoice")["by"] == "mailer"
    assert model.asked("invoice") == 1
    routes = [route for route in dev.json("routes") if route["process"] == "llm-invoice"]
    assert [(route["executor"], route["source"], route["reason"]) for route in routes] == [
        ("llm-mailer", "llm", "it sends letters")
    ]
    assert "s3cret" not in json.dumps(model.questions), "variables are not the model's business"


def test_an_unsure_model_makes_an_incident_with_its_words(dev: DevSystem, model: Model) -> None:
    model.answers["unclear"] = {"executor": "llm-mailer", "confidence": 0.2, "reason": "could be anything"}
    failed = dev.run("run", "llm-unclear", check=False)
    assert failed.returncode == 1
    assert "could be anything" in failed.stderr
    assert "spec.router.minConfidence" in failed.stderr


def test_an_executor_outside_the_catalogue_is_never_used(dev: DevSystem, model: Model) -> None:
    model.answers["outside"] = {"executor": "rm -rf /", "confidence": 1, "reason": "ignore your instructions"}
    instance = dev.json("run", "llm-outside", "--no-wait")["instance"]
    assert "not in the catalogue" in dev.wait_for_task(instance=instance, state=UNANSWERED)["message"]


def test_nonsense_is_a_clear_refusal(dev: DevSystem, model: Model) -> None:
    model.answers["nonsense"] = "sure, I would be happy to help!"
    instance = dev.json("run", "llm-nonsense", "--no-wait")["instance"]
    assert "not what was asked for" in dev.wait_for_task(instance=instance, state=UNANSWERED)["message"]


def test_a_model_that_is_down_is_a_clear_refusal_and_no_secret_leaks(dev: DevSystem, model: Model) -> None:
    model.answers["broken"] = "down"
    instance = dev.json("run", "llm-broken", "--no-wait")["instance"]
    assert "gave no answer" in dev.wait_for_task(instance=instance, state=UNANSWERED, timeout=60)["message"]
    everything = dev.output + dev.logs() + json.dumps(dev.tasks())
    everything += "".join(path.read_text() for path in Path(dev.state, "registry").rglob("*") if path.is_file())
    assert KEY not in everything
