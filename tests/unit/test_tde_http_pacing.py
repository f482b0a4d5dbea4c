"""Time-outs, repeated calls, circuit breaker, rate limit, idempotency keys."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from prokos.resources.http_limits import CircuitBreaker
from prokos.resources.http_settings import HttpSettings
from prokos.tde import BusinessError, FatalFailure, RetryableFailure
from prokos.tde.http.attempt import Attempt
from prokos.tde.http.breaker import Breaker
from prokos.tde.http.failures import CircuitOpenFailure, ServiceFailure
from unit.http_bench import Service, call, context, executing, serving

FAST = {"tries": 3, "initial": "1ms", "maximum": "2ms"}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as started:
        yield started


def answers_in_turn(service: Service, *answers: web.Response | int) -> None:
    """Each request gets the next answer, the last one ever after."""
    rest = list(answers)

    async def answer(request: web.BaseRequest) -> web.Response:
        found = rest.pop(0) if len(rest) > 1 else rest[0]
        return web.json_response({"ok": True}, status=found) if isinstance(found, int) else found

    service.answer = answer


# Time-outs


async def hanging(request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def dripping(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.01)
    return response


async def test_a_silent_server_is_left_after_the_read_timeout(service: Service) -> None:
    service.answer = hanging
    started = time.monotonic()
    with pytest.raises(RetryableFailure, match=r"silent for too long \(ReadTimeout\)"):
        await call(url=service.url, timeouts={"read": "50ms"}, seconds=30)
    assert time.monotonic() - started < 60


async def test_a_server_that_drips_is_left_after_the_total_timeout(service: Service) -> None:
    service.answer = dripping
    with pytest.raises(RetryableFailure, match=r"no answer within 0\.1 s"):
        await call(url=service.url, timeouts={"read": "1s", "total": "100ms"}, seconds=30)


async def test_the_attempt_ends_before_the_worker_ends_it(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.answer = dripping
    with pytest.raises(RetryableFailure, match=r"no answer within 2 s"):
        await call(url=service.url, seconds=2)
    async with executing(url=service.url) as executor:
        monkeypatch.setattr("prokos.tde.http.attempt.time", SimpleNamespace(monotonic=lambda: 100.0))
        assert Attempt(executor.settings, executor._running, context(2)).deadline == pytest.approx(101.9)


async def test_a_host_that_takes_no_connection_is_left_after_the_connect_timeout() -> None:
    async def black_hole(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(RetryableFailure, match=r"no connection in time \(looking up pay\.example took too long\)"):
        await call(url="http://pay.example/", resolver=black_hole, timeouts={"connect": "50ms"}, seconds=30)


# Repeated calls


async def test_repeats_a_call_within_the_attempt(service: Service) -> None:
    answers_in_turn(service, 503, 429, 200)
    assert await call({"a": 1}, url=service.url, method="POST", retry=FAST) == {"ok": True}
    assert len(service.requests) == 3
    assert {request.headers["Idempotency-Key"] for request in service.requests} == {"4711-3"}
    assert set(service.bodies) == {b'{"a":1}'}


async def test_the_last_failure_is_the_attempts(service: Service) -> None:
    answers_in_turn(service, 502, 503, 504, 200)
    with pytest.raises(RetryableFailure, match="answered 504"):
        await call(url=service.url, retry=FAST)
    assert len(service.requests) == 3


async def test_does_not_repeat_what_is_final(service: Service) -> None:
    answers_in_turn(service, 404)
    with pytest.raises(FatalFailure):
        await call(url=service.url, retry=FAST)
    answers_in_turn(service, 402)
    with pytest.raises(BusinessError):
        await call(url=service.url, retry=FAST, outcomes=[{"status": "402", "outcome": "error", "code": "NO"}])
    assert len(service.requests) == 2


async def test_without_settings_the_engine_alone_repeats(service: Service) -> None:
    answers_in_turn(service, 503, 200)
    with pytest.raises(RetryableFailure):
        await call(url=service.url)
    assert len(service.requests) == 1


async def test_waits_as_long_as_the_service_asks_within_the_attempt(service: Service) -> None:
    answers_in_turn(service, web.Response(status=503, headers={"Retry-After": "1"}), 200)
    started = time.monotonic()
    assert await call(url=service.url, retry=FAST) == {"ok": True}
    assert time.monotonic() - started >= 1


async def test_a_wait_beyond_the_attempt_is_the_engines(service: Service) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    answers_in_turn(service, web.Response(status=429, headers={"Retry-After": later}), 200)
    started = time.monotonic()
    with pytest.raises(RetryableFailure) as failure:
        await call(url=service.url, retry=FAST)
    assert time.monotonic() - started < 60
    assert failure.value.retry_after is not None
    assert timedelta(minutes=59) < failure.value.retry_after <= timedelta(hours=1)
    assert len(service.requests) == 1


async def test_repeats_a_post_without_a_key_only_when_the_service_cannot_have_seen_it(service: Service) -> None:
    unsafe: dict[str, Any] = {"method": "POST", "headers": {"Idempotency-Key": ""}, "retry": FAST}
    answers_in_turn(service, 503, 200)
    with pytest.raises(RetryableFailure, match="503"):
        await call(url=service.url, **unsafe)
    assert len(service.requests) == 1

    tried = []

    async def flaky(host: str, port: int) -> list[str]:
        tried.append(host)
        if len(tried) == 1:
            raise OSError("no such name")
        return ["127.0.0.2"] if len(tried) == 2 else ["127.0.0.1"]  # nobody listens on the second

    await call(url=f"http://pay.example:{service.port}/", resolver=flaky, **unsafe)
    assert len(tried) == 3
    assert len(service.requests) == 2


async def test_a_cancelled_attempt_is_not_repeated(service: Service) -> None:
    service.answer = hanging
    async with executing(url=service.url, retry=FAST) as executor:
        task = asyncio.create_task(executor.execute({}, context(60)))
        while not service.requests:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(service.requests) == 1


def test_refuses_waits_that_do_not_fit() -> None:
    with pytest.raises(ValidationError, match="longer than maximum"):
        HttpSettings.model_validate({"url": "https://x/", "retry": {"initial": "10s", "maximum": "1s"}})


# Circuit breaker


async def test_leaves_a_broken_service_alone_until_it_may_have_recovered(service: Service) -> None:
    answers_in_turn(service, 500, 500, 500, 200)
    async with executing(url=service.url, circuit_breaker={"failures": 2, "open_for": "30s"}) as executor:
        assert executor._service is not None
        assert executor._service.breaker is not None
        clock = [0.0]
        executor._service.breaker._clock = lambda: clock[0]
        for _ in range(2):
            with pytest.raises(RetryableFailure, match="answered 500"):
                await executor.execute({}, context())
        for at, left in ((0.0, 30), (20.0, 10)):
            clock[0] = at
            with pytest.raises(RetryableFailure, match=r"not called: 2 calls in a row failed") as failure:
                await executor.execute({}, context())
            assert failure.value.retry_after == timedelta(seconds=left)
        assert len(service.requests) == 2
        clock[0] = 30.0
        with pytest.raises(RetryableFailure, match="answered 500"):  # the one that tries
            await executor.execute({}, context())
        with pytest.raises(RetryableFailure, match="not called"):
            await executor.execute({}, context())
        clock[0] = 60.0
        for _ in range(2):
            assert await executor.execute({}, context()) == {"ok": True}
    assert len(service.requests) == 5


async def test_an_open_circuit_is_not_repeated_within_the_attempt(service: Service) -> None:
    answers_in_turn(service, 500)
    with pytest.raises(RetryableFailure, match="not called: 2 calls in a row failed"):
        await call(url=service.url, retry=FAST, circuit_breaker={"failures": 2})
    assert len(service.requests) == 2


@pytest.mark.parametrize("status", [400, 404, 408, 409, 425, 429])
async def test_a_service_that_answers_is_not_broken(service: Service, status: int) -> None:
    answers_in_turn(service, status)
    async with executing(url=service.url, circuit_breaker={"failures": 1}) as executor:
        for _ in range(3):
            with pytest.raises((FatalFailure, RetryableFailure), match=f"answered {status}"):
                await executor.execute({}, context())


async def test_a_service_that_hangs_is_broken(service: Service) -> None:
    service.answer = hanging
    async with executing(url=service.url, circuit_breaker={"failures": 1}) as executor:
        with pytest.raises(RetryableFailure, match="no answer"):
            await executor.execute({}, context(0.2))
        with pytest.raises(RetryableFailure, match="not called"):
            await executor.execute({}, context())


def breaking(breaker: Breaker, error: BaseException | None) -> None:
    with contextlib.suppress(type(error) if error else ()), breaker.watching():
        if error is not None:
            raise error


def test_one_call_tries_and_a_cancelled_one_lets_the_next_try() -> None:
    now = [0.0]
    breaker = Breaker(CircuitBreaker(failures=1, open_for=timedelta(seconds=10)), lambda: now[0])
    breaking(breaker, ServiceFailure("down"))
    now[0] = 10.0
    with breaker.watching(), pytest.raises(CircuitOpenFailure), breaker.watching():
        pass
    breaking(breaker, ServiceFailure("down"))
    now[0] = 20.0
    breaking(breaker, asyncio.CancelledError())
    breaking(breaker, None)
    breaking(breaker, None)


def test_failures_count_only_in_a_row() -> None:
    breaker = Breaker(CircuitBreaker(failures=2))
    for _ in range(5):
        breaking(breaker, ServiceFailure("down"))
        breaking(breaker, RetryableFailure("busy, but there"))
    breaking(breaker, None)


# Rate limit


async def test_calls_come_no_faster_than_the_rate_limit(service: Service) -> None:
    rate = {"requests_per_second": 20, "burst": 2}
    started = time.monotonic()
    async with executing(url=service.url, rate_limit=rate, concurrency=6) as executor:
        await asyncio.gather(*(executor.execute({}, context(30)) for _ in range(6)))
    assert time.monotonic() - started >= 4 / 20 * 0.9


async def test_a_call_whose_turn_does_not_come_is_retried_later(service: Service) -> None:
    async with executing(url=service.url, rate_limit={"requests_per_second": 0.01}) as executor:
        await executor.execute({}, context())
        with pytest.raises(RetryableFailure, match=r"not called, spec\.http\.rateLimit left no time"):
            await executor.execute({}, context(0.2))
    assert len(service.requests) == 1


# Idempotency


async def test_sends_a_key_of_the_business_under_the_services_name(service: Service) -> None:
    settings: dict[str, Any] = {"method": "POST", "idempotency": {"header": "X-Request-Id", "field": "order.id"}}
    await call({"order": {"id": "A-1"}}, url=service.url, **settings)
    assert service.requests[0].headers["X-Request-Id"] == "A-1"
    assert "Idempotency-Key" not in service.requests[0].headers


@pytest.mark.parametrize("key", ["", " a", "a\nb", "x" * 256, "Jörg", None, ["a"]])
async def test_refuses_a_key_that_cannot_be_sent(service: Service, key: Any) -> None:
    settings: dict[str, Any] = {"method": "POST", "idempotency": {"field": "id"}}
    with pytest.raises(FatalFailure, match="'id'"):
        await call({"id": key}, url=service.url, **settings)
    assert service.requests == []
