"""Long calls: the service answers 202, the TDE waits on the engine, and a message brings the result."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from lxml import etree
from pydantic import ValidationError

from prokos.cli.callback import build_receiver
from prokos.engine import EngineUnavailableError, NotFoundError, PayloadTooLargeError, RejectedError
from prokos.processes import read_bpmn, render_tde
from prokos.resources import TaskExecutor
from prokos.resources.http_settings import HttpSettings
from prokos.resources.names import CALLBACK_MESSAGE, TDE_RESULT_ELEMENT
from prokos.tde import BusinessError, Context, FatalFailure, RetryableFailure
from prokos.tde.callback import SPARE_LEASE, brought, genuine, is_token, make_token, read_callback
from prokos.tde.contract import AwaitCallback
from unit.builders import LEASE_MS, task
from unit.fake_engine import FakeEngine
from unit.http_bench import SECRETS, Service, context, executing, serving
from unit.tde_bench import AGAIN, PARENT, TDE, TDE_INSTANCE, Bench, Written, dispatched

TOKEN = make_token("s3cr3t-token", "4711-3")


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as started:
        started.answers(status=202)
        yield started


# The call


def callback(**settings: Any) -> dict[str, Any]:
    return {"method": "POST", "callback": {"secret": "token", **settings}}


async def call(service: Service, data: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    async with executing(url=service.url, secrets=SECRETS, **settings) as executor:
        return await executor.execute(data or {}, context(task=task()))


async def test_the_service_is_told_where_its_result_is_awaited(service: Service) -> None:
    settings = callback(url="https://prokos.example/callbacks/{token}", header="X-Callback", field="callbackUrl")
    with pytest.raises(AwaitCallback) as awaited:
        await call(service, {"n": 1}, **settings)
    assert awaited.value.token == TOKEN
    assert awaited.value.timeout == timedelta(hours=1)
    url = f"https://prokos.example/callbacks/{TOKEN}"
    assert service.requests[0].headers["X-Callback"] == url
    assert json.loads(service.bodies[0]) == {"n": 1, "callbackUrl": url}


async def test_by_default_the_token_alone_is_sent_as_a_header(service: Service) -> None:
    with pytest.raises(AwaitCallback):
        await call(service, {"n": 1}, **callback())
    assert service.requests[0].headers["Prokos-Callback"] == TOKEN
    assert json.loads(service.bodies[0]) == {"n": 1}


async def test_a_service_that_answers_at_once_is_not_waited_for(service: Service) -> None:
    service.answers_json({"done": True})
    assert await call(service, **callback()) == {"done": True}
    outcomes = [{"status": "200", "where": {"done": False}, "outcome": "callback"}]
    service.answers_json({"done": False})
    with pytest.raises(AwaitCallback):
        await call(service, outcomes=outcomes, **callback())


async def test_202_is_a_result_where_no_callback_is_awaited(service: Service) -> None:
    assert await call(service, method="POST") == {}


async def test_a_tde_that_a_process_calls_itself_is_refused_before_the_call(service: Service) -> None:
    async with executing(url=service.url, **callback()) as executor:
        with pytest.raises(
            FatalFailure, match=r"spec\.http\.callback: a process that calls tde-pay itself cannot wait"
        ):
            await executor.execute({}, context())
    assert service.requests == []


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"callback": {"secret": "s", "url": "https://x/"}}, "does not contain {token}"),
        ({"callback": {"secret": "s", "header": ""}}, "give header, field or both"),
        ({"callback": {"secret": "s", "header": "Host"}}, "cannot be set"),
        ({"callback": {"secret": "s", "field": "f"}, "method": "DELETE"}, "needs a body that is an object"),
        ({"callback": {"secret": "s", "field": "f"}, "body_format": "text"}, "needs a body that is an object"),
        ({"callback": {"secret": "s", "timeout": "0s"}}, "greater than"),
        ({"outcomes": [{"status": "202", "outcome": "callback"}]}, "needs the settings callback"),
    ],
)
def test_refuses_settings_that_could_not_work(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        HttpSettings.model_validate({"url": "https://x/", "method": "POST", **settings})


# Tokens and what callbacks hold


def test_a_token_tells_its_task_and_cannot_be_guessed() -> None:
    token = make_token("secret", "2251799813689806")
    assert token.startswith("2251799813689806-")
    assert is_token(token)
    assert genuine(token, ["other", "secret"])
    assert token == make_token("secret", "2251799813689806")
    for wrong in (token[:-1], token[:-1] + "x", token.replace("2", "3", 1), "2251799813689806", "", "ü" + token):
        assert not genuine(wrong, ["secret"])
    assert not genuine(token, ["other"])
    assert not genuine(token, [])


@pytest.mark.parametrize("result", [{"a": 1}, [1], None, "x", 0])
def test_a_result_may_be_any_json(result: Any) -> None:
    assert read_callback({"result": result}) == result


def test_a_callback_may_be_a_business_error_or_a_failure() -> None:
    with pytest.raises(BusinessError) as error:
        read_callback({"error": {"code": "NO", "message": "why", "variables": {"a": 1}}})
    assert (error.value.code, error.value.message, error.value.variables) == ("NO", "why", {"a": 1})
    with pytest.raises(RetryableFailure, match="busy") as failure:
        read_callback({"failure": {"message": "busy", "retryAfterSeconds": 7}})
    assert failure.value.retry_after == timedelta(seconds=7)
    with pytest.raises(FatalFailure, match="broken"):
        read_callback({"failure": {"message": "broken", "retryable": False}})


@pytest.mark.parametrize(
    "value",
    [
        {}, [], "x", 7, {"result": 1, "error": {}}, {"other": 1}, {"error": {}}, {"error": {"code": ""}},
        {"error": "x"},
        {"error": {"code": "X", "variables": [1]}}, {"error": {"code": "X", "message": 7}}, {"failure": None},
        {"failure": {"message": 7}},
    ],
)  # fmt: skip
def test_what_is_no_callback_is_a_clear_failure(value: Any) -> None:
    with pytest.raises(FatalFailure, match="callback"):
        read_callback(value)


@pytest.mark.parametrize("seconds", [-1, "7", True and 1e9, None])
def test_a_wait_that_is_none_is_left_to_the_executor(seconds: Any) -> None:
    with pytest.raises(RetryableFailure) as failure:
        read_callback({"failure": {"retryAfterSeconds": seconds}})
    assert failure.value.retry_after is None


def test_a_time_that_is_over_is_a_retryable_failure() -> None:
    waited = {"prokosAwaiting": {"token": TOKEN, "seconds": 5.0, "timeout": "PT5S"}, "prokosCallback": None}
    with pytest.raises(RetryableFailure, match="no callback came within 5 s"):
        brought(waited)


async def test_a_result_is_judged_as_if_the_service_had_answered_it(service: Service) -> None:
    outcomes = [
        {"status": "2xx", "where": {"state": "refused"}, "outcome": "error", "code": "NO", "message_from": "why"},
        {"status": "2xx", "where": {"state": "on its way"}, "outcome": "callback"},
    ]
    async with executing(url=service.url, outcomes=outcomes, **callback()) as executor:
        assert await executor.resume({"state": "fine"}, context()) == {"state": "fine"}
        assert await executor.resume([1], context()) == {"result": [1]}
        assert await executor.resume({"echo": "s3cr3t-token"}, context()) == {"echo": "<secret token>"}
        with pytest.raises(BusinessError) as error:
            await executor.resume({"state": "refused", "why": "too late"}, context())
        assert (error.value.code, error.value.message) == ("NO", "too late")
        with pytest.raises(FatalFailure, match="cannot announce another"):
            await executor.resume({"state": "on its way"}, context())


# The worker


class Awaiter(Written):
    """Awaits a callback, and takes what it brings."""

    async def resume(self, result: Any, _: Context) -> Any:
        return result


async def awaiting(_: dict[str, Any], __: Context) -> None:
    raise AwaitCallback(TOKEN, timedelta(seconds=90))


def bench(**spec: Any) -> Bench:
    made = Bench(awaiting, **spec)
    made.executor = made.worker.executor = Awaiter(awaiting, {})
    return made


def result_job(brings: Any, **spec: Any) -> Any:
    job = dispatched(element=TDE_RESULT_ELEMENT, late_ms=60_000, **spec)
    variables = {**job.variables, "prokosCallback": brings, "prokosAwaiting": {"token": TOKEN, "seconds": 90}}
    return dispatched_with(job, variables)


def dispatched_with(job: Any, variables: dict[str, Any]) -> Any:
    from dataclasses import replace

    return replace(job, raw_variables=json.dumps(variables))


WAITS = {"token": TOKEN, "timeout": "PT90.000S", "seconds": 90.0}


async def test_the_task_keeps_its_lease_and_the_tde_waits_without_a_worker() -> None:
    made = bench()
    commands = await made.does(dispatched())
    outcome = {"kind": "awaiting", "message": "awaits its callback for at most 90 s"}
    assert commands == [
        ("extend", PARENT, 90 + SPARE_LEASE),
        ("complete", TDE, {"prokosAwaiting": WAITS, "prokosCallback": None, "outcome": outcome}),
    ]
    assert made.hints.sent == [(PARENT, "awaiting")]


async def test_a_lease_that_is_over_for_a_moment_does_not_matter() -> None:
    made = bench()
    made.engine.refusals["extend", PARENT] = RejectedError("not activated")
    commands = await made.does(dispatched())
    assert [name for name, *_ in commands] == ["complete"]


async def test_a_task_that_has_ended_awaits_nothing() -> None:
    made = bench()
    made.engine.gone.add(PARENT)
    await made.does(dispatched())
    assert made.hints.sent == [(PARENT, "gone")]


async def test_a_callback_completes_the_task() -> None:
    made = bench()
    commands = await made.does(result_job({"result": {"paid": 42}}))
    assert commands == [
        ("extend", PARENT, LEASE_MS / 1000),
        ("complete", PARENT, {"paid": 42}),
        ("complete", TDE, {}),
    ]
    assert made.executor.inputs == []


@pytest.mark.parametrize(
    ("brings", "reported"),
    [
        ({"error": {"code": "NO", "variables": {"a": 1}}}, ("error", PARENT, "NO", "", {"a": 1})),
        ({"failure": {"message": "busy"}}, ("fail", PARENT, "busy", 2, 1.0)),
        ({"failure": {"message": "broken", "retryable": False}}, ("fail", PARENT, f"broken{AGAIN}", 0, 0)),
        (None, ("fail", PARENT, "no callback came within 90 s (callback.timeout)", 2, 1.0)),
    ],
)
async def test_a_callback_may_end_the_attempt_in_every_way(brings: Any, reported: tuple[Any, ...]) -> None:
    made = bench()
    await made.does(result_job(brings))
    assert reported in made.engine.reports


async def test_what_a_callback_brings_must_satisfy_the_schema() -> None:
    made = bench(output_schema={"required": ["paid"]})
    await made.does(result_job({"result": {}}))
    message = next(command[2] for command in made.engine.reports if command[0] == "fail")
    assert "outputSchema" in message


async def test_a_callback_for_a_task_that_has_ended_ends_the_tde() -> None:
    made = bench()
    made.engine.gone.add(PARENT)
    commands = await made.does(result_job({"result": {}}))
    assert commands == [("cancel", TDE_INSTANCE)]


async def test_a_callback_is_reported_although_the_lease_is_over() -> None:
    made = bench()
    made.engine.refusals["extend", PARENT] = RejectedError("not activated")
    commands = await made.does(result_job({"result": {"paid": 1}}))
    assert ("complete", PARENT, {"paid": 1}) in commands


async def test_a_callback_is_mapped_by_the_outputs() -> None:
    made = bench(outputs=[{"source": "=paid", "target": "amount"}])
    commands = await made.does(result_job({"result": {"paid": 1}}))
    assert ("complete", PARENT, {"amount": 1}) in commands


async def test_an_executor_that_awaits_nothing_says_so() -> None:
    made = Bench(awaiting)
    await made.does(result_job({"result": {}}))
    assert any("await no callbacks" in str(command) for command in made.engine.reports)


# The process


def http_executor(**http: Any) -> TaskExecutor:
    spec = {
        "type": "http",
        "secrets": [{"name": "token", "env": "TOKEN"}],
        "http": {"url": "https://x/", "method": "POST", **http},
    }
    return TaskExecutor.model_validate({"metadata": {"name": "pay"}, "spec": spec})


def test_only_a_tde_that_awaits_callbacks_has_what_they_need() -> None:
    plain, waiting = render_tde(http_executor()), render_tde(http_executor(callback={"secret": "token"}))
    assert b"Callback" not in plain
    file = read_bpmn(waiting, "tde", kernel=True)
    assert [str(problem) for problem in file.problems] == []
    types = [each.job_type for process in file.processes for each in process.tasks]
    assert types == ["prokos.tde.pay", "prokos.tde.pay"]
    root = etree.fromstring(waiting)
    names = {element.get("name") for element in root if element.tag.endswith("}message")}
    assert CALLBACK_MESSAGE in names
    drawn = {shape.get("bpmnElement") for shape in root.iter() if shape.get("bpmnElement")}
    process = root[0] if root[0].tag.endswith("}process") else root.find("{*}process")
    assert process is not None
    assert {element.get("id") for element in process if element.get("id")} | {"tde-pay"} == drawn


# The receiver


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[str, FakeEngine]]:
    engine = FakeEngine()
    runner = web.AppRunner(build_receiver(engine, ["other", "s3cr3t-token"]))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", engine
    await runner.cleanup()


async def post(url: str, body: str | bytes = "") -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as response:
        return response.status, await response.text()


GOOD = make_token("s3cr3t-token", "4711")


@pytest.mark.parametrize(
    ("path", "body", "callback"),
    [
        ("", '{"a": 1}', {"result": {"a": 1}}),
        ("", "", {"result": None}),
        ("/error", '{"code": "NO"}', {"error": {"code": "NO"}}),
        ("/failure", '{"message": "busy"}', {"failure": {"message": "busy"}}),
        ("/failure", '{"retryable": false}', {"failure": {"retryable": False}}),
    ],
)
async def test_the_receiver_publishes_what_services_send(
    receiver: tuple[str, FakeEngine], path: str, body: str, callback: dict[str, Any]
) -> None:
    url, engine = receiver
    assert (await post(f"{url}/{GOOD}{path}", body))[0] == 202
    assert engine.commands == [("publish", CALLBACK_MESSAGE, GOOD, {"prokosCallback": callback}, True)]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (GOOD[:-1] + ("0" if GOOD[-1] != "0" else "1"), "{}", 404),
        (make_token("unknown", "4711"), "{}", 404),
        ("4711", "{}", 404),
        (GOOD + "%0a", "{}", 404),
        (GOOD + "/other", "{}", 404),
        (GOOD, "{", 400),
        (GOOD, b"\xff", 400),
        (GOOD, "NaN", 400),
        (GOOD, "[" * 100_000, 400),
        (GOOD + "/error", '{"code": ""}', 400),
        (GOOD + "/error", "[]", 400),
        (GOOD + "/failure", '"x"', 400),
        (GOOD, b"1" * 3_000_000, 413),
    ],
)
async def test_the_receiver_takes_nothing_else(
    receiver: tuple[str, FakeEngine], path: str, body: str | bytes, status: int
) -> None:
    url, engine = receiver
    assert (await post(f"{url}/{path}", body))[0] == status
    assert engine.commands == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(EngineUnavailableError("away"), 503), (PayloadTooLargeError("4 MB"), 400), (NotFoundError("odd"), 503)],
)
async def test_the_receiver_says_when_the_engine_does_not_take_it(
    receiver: tuple[str, FakeEngine], error: Exception, status: int
) -> None:
    url, engine = receiver
    engine.refusals["publish"] = error
    assert (await post(f"{url}/{GOOD}", "{}"))[0] == status
