"""The executor type container against a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jsonschema_rs
import pytest
import structlog
import yaml

from prokos.resources.container_settings import ContainerSettings
from prokos.tde.container import ContainerExecutor
from prokos.tde.contract import BusinessError, Context, Environment, FatalFailure, RetryableFailure, Secrets
from unit.builders import task

CONTRACT = yaml.safe_load((Path(__file__).parents[2] / "docs/executors/container.openapi.yaml").read_text())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self._answer(200 if self.server.healthy else 503, b"")

    def do_POST(self):
        self.server.requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        status, body, headers = self.server.answer
        time.sleep(self.server.delay)
        self._answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)

    def _answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def server(answer=(200, {"output": {"done": True}}, ()), *, healthy=True, delay=0.0):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.answer, served.healthy, served.delay, served.requests = answer, healthy, delay, []
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            served.shutdown()
            thread.join()


def made(port, tmp_path, secrets=None, **settings):
    parsed = ContainerSettings.model_validate({"image": "x", "port": port, **settings})
    return ContainerExecutor(parsed, Environment("c", tmp_path, 4, Secrets(secrets or {})))


@asynccontextmanager
async def executor(port, tmp_path, **more):
    one = made(port, tmp_path, **more)
    await one.start()
    try:
        yield one
    finally:
        await one.close()


def context(timeout=60.0):
    return Context("key-1", timedelta(seconds=timeout), structlog.get_logger(), task(7), attempt=2)


async def outcome(tmp_path, status, body, headers=(), **more):
    with server((status, body, headers)) as served:
        async with executor(served.server_port, tmp_path, **more) as one:
            return await one.execute({"amount": 5}, context())


async def test_a_task_is_handed_over_with_all_that_belongs_to_it(tmp_path):
    with server() as served:
        async with executor(served.server_port, tmp_path) as one:
            assert await one.execute({"amount": 5}, context()) == {"done": True}
    (request,) = served.requests
    assert request["input"] == {"amount": 5}
    assert (request["idempotencyKey"], request["attempt"], request["timeoutSeconds"]) == ("key-1", 2, 60)
    assert request["task"]["job_key"] == 7


def documented(name):
    """A schema of the contract, with which others are resolved."""
    return {"$ref": f"#/components/schemas/{name}", "components": CONTRACT["components"]}


@pytest.mark.parametrize("of", [task(7), None], ids=["dispatched", "called"])
async def test_what_is_handed_over_is_what_the_contract_says(tmp_path, of):
    with server() as served:
        async with executor(served.server_port, tmp_path) as one:
            await one.execute({"amount": 5}, replace(context(), task=of))
    (request,) = served.requests
    jsonschema_rs.validate(documented("Attempt"), request)
    attempt = CONTRACT["components"]["schemas"]["Attempt"]
    assert request.keys() == attempt["properties"].keys()
    assert request["task"] is None or request["task"].keys() == attempt["properties"]["task"]["properties"].keys()


@pytest.mark.parametrize(
    ("name", "answer", "ending"),
    [
        ("Completed", {"output": {"done": True}}, None),
        ("BusinessError", {"error": {"code": "DECLINED", "message": "no", "variables": {"limit": 1}}}, BusinessError),
        ("BusinessError", {"error": {"code": "DECLINED"}}, BusinessError),
        ("Failed", {"failure": {"message": "busy", "retryAfterSeconds": 7}}, RetryableFailure),
        ("Failed", {"failure": {"message": "broken", "retryable": False}}, FatalFailure),
    ],
)
async def test_each_answer_of_the_contract_is_taken_as_what_it_says(tmp_path, name, answer, ending):
    jsonschema_rs.validate(documented(name), answer)
    with pytest.raises(ending) if ending else nullcontext():
        await outcome(tmp_path, 200, answer)


async def test_a_business_error(tmp_path):
    body = {"error": {"code": "DECLINED", "message": "no funds", "variables": {"limit": 1}}}
    with pytest.raises(BusinessError) as raised:
        await outcome(tmp_path, 200, body)
    assert (raised.value.code, raised.value.message, raised.value.variables) == ("DECLINED", "no funds", {"limit": 1})


async def test_a_failure_says_whether_and_when_to_try_again(tmp_path):
    with pytest.raises(RetryableFailure, match="busy") as busy:
        await outcome(tmp_path, 200, {"failure": {"message": "busy", "retryAfterSeconds": 7}})
    assert busy.value.retry_after == timedelta(seconds=7)
    with pytest.raises(FatalFailure, match="broken"):
        await outcome(tmp_path, 500, {"failure": {"message": "broken", "retryable": False}})


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_statuses_that_pass_are_tried_again(tmp_path, status):
    with pytest.raises(RetryableFailure, match=str(status)) as failed:
        await outcome(tmp_path, status, b"later", [("Retry-After", "3")])
    assert failed.value.retry_after == timedelta(seconds=3)


async def test_a_wait_may_be_a_date(tmp_path):
    date = format_datetime(datetime(2099, 1, 1, tzinfo=UTC), usegmt=True)
    with pytest.raises(RetryableFailure) as failed:
        await outcome(tmp_path, 503, b"later", [("Retry-After", date)])
    assert failed.value.retry_after == timedelta(days=1)


@pytest.mark.parametrize("wait", ["soon", [], {}, "nan", 10**400])
async def test_a_wait_that_says_nothing_is_the_executor_s_own(tmp_path, wait):
    with pytest.raises(RetryableFailure) as failed:
        await outcome(tmp_path, 503, {"failure": {"message": "busy", "retryAfterSeconds": wait}})
    assert failed.value.retry_after is None


@pytest.mark.parametrize("status", [301, 400, 404, 422, 501])
async def test_other_statuses_fail(tmp_path, status):
    with pytest.raises(FatalFailure, match=f"{status}: why not"):
        await outcome(tmp_path, status, b"why\nnot")


@pytest.mark.parametrize(
    "body", [b"", b"garbage", b"\xff\xfe", b"[]", {}, {"output": 5}, {"error": {}}, {"failure": {}}]
)
async def test_an_answer_that_is_not_understood_fails(tmp_path, body):
    with pytest.raises(FatalFailure, match="output, error or failure"):
        await outcome(tmp_path, 200, body)


async def test_an_answer_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(FatalFailure, match="maxResponseBytes"):
        await outcome(tmp_path, 200, {"output": {"x": "y" * 5000}}, maxResponseBytes=1000)


async def test_a_server_that_hangs_is_left(tmp_path):
    with server(delay=1.0) as served:
        async with executor(served.server_port, tmp_path) as one:
            with pytest.raises(RetryableFailure, match="did not answer"):
                await one.execute({}, context(0.1))


async def test_a_server_that_ends_is_tried_again(tmp_path):
    with server() as served:
        one = made(served.server_port, tmp_path)
        await one.start()
    with pytest.raises(RetryableFailure, match="cannot be reached"):
        await one.execute({}, context())
    await one.close()


async def test_it_takes_tasks_when_the_server_does(tmp_path):
    with server(healthy=False) as served:
        one = made(served.server_port, tmp_path)
        starting = asyncio.create_task(one.start())
        done, _ = await asyncio.wait([starting], timeout=0.2)
        assert not done
        served.healthy = True
        await asyncio.wait_for(starting, 10)
        await one.close()


async def test_a_secret_in_a_message_does_not_get_out(tmp_path):
    with pytest.raises(FatalFailure) as failed:
        await outcome(tmp_path, 400, b"bad token t0p", secrets={"token": "t0p"})
    assert "bad token <secret token>" in str(failed.value)
