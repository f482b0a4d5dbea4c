"""What the `http` executor makes of answers, and of servers that give none."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from prokos.tde import BusinessError, FatalFailure, RetryableFailure
from prokos.tde.http.response import LONGEST_WAIT, retry_after
from unit.http_bench import Service, call, context, executing, serving


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as started:
        yield started


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        ({"text": '{"a": 1}', "content_type": "application/json"}, {"a": 1}),
        ({"text": "[1, 2]", "content_type": "application/json"}, {"result": [1, 2]}),
        ({"text": "null", "content_type": "application/json"}, {"result": None}),
        ({"text": '{"a": 1}', "content_type": "application/hal+json"}, {"a": 1}),
        ({"text": "hello", "content_type": "text/plain"}, {"result": "hello"}),
        ({"body": "grün".encode("latin-1"), "content_type": "text/plain", "charset": "latin-1"}, {"result": "grün"}),
        ({"text": '{"a": 1}', "content_type": "text/plain"}, {"result": '{"a": 1}'}),
        ({"status": 204}, {}),
        ({"text": "", "content_type": "application/json"}, {}),
    ],
)
async def test_turns_a_body_into_output(service: Service, answer: dict[str, Any], output: dict[str, Any]) -> None:
    service.answers(**answer)
    assert await call(url=service.url) == output


async def test_puts_the_whole_response_into_one_variable(service: Service) -> None:
    service.answers(
        text='{"a": 1}', content_type="application/json", status=201, headers={"X-Id": "7", "Set-Cookie": "s=1"}
    )
    output = await call(url=service.url, result_variable="reply")
    assert output["reply"]["status"] == 201
    assert output["reply"]["body"] == {"a": 1}
    assert output["reply"]["headers"]["x-id"] == "7"
    assert "set-cookie" not in output["reply"]["headers"]


async def test_head_completes_with_the_headers(service: Service) -> None:
    output = await call(url=service.url, method="HEAD", result_variable="reply")
    assert output["reply"]["body"] is None


@pytest.mark.parametrize("text", ["<html>starting</html>", '{"a": ', '{"a": NaN}', '"\\ud800"', "[" * 100_000])
async def test_a_response_that_claims_to_be_json_and_is_not_is_tried_again(service: Service, text: str) -> None:
    service.answers(text=text, content_type="application/json")
    with pytest.raises(RetryableFailure, match="says application/json, but is no JSON"):
        await call(url=service.url)


async def test_a_binary_response_is_no_result(service: Service) -> None:
    service.answers(body=b"\x89PNG\r\n\xff\xfe", content_type="image/png")
    with pytest.raises(FatalFailure, match="image/png, neither JSON nor text"):
        await call(url=service.url)


async def test_stops_reading_at_the_limit(service: Service) -> None:
    sent = 0

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while sent < 1_000_000_000:
                await response.write(b"x" * 10_000)
                sent += 10_000
        return response

    service.answer = endless
    with pytest.raises(FatalFailure, match=r"exceeds spec\.http\.maxResponseBytes \(50000\)"):
        await call(url=service.url, max_response_bytes=50_000)
    assert sent < 50_000_000


async def test_a_compressed_bomb_is_stopped_at_the_limit(service: Service) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    service.answers(body=bomb, content_type="text/plain", headers={"Content-Encoding": "gzip"})
    with pytest.raises(FatalFailure, match=r"maxResponseBytes"):
        await call(url=service.url)


async def test_reads_a_compressed_response_that_nobody_asked_for(service: Service) -> None:
    body = gzip.compress(b'{"a": 1}')
    service.answers(body=body, content_type="application/json", headers={"Content-Encoding": "gzip"})
    assert await call(url=service.url) == {"a": 1}
    assert service.requests[0].headers["Accept-Encoding"] == "identity"


# Outcomes


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_tries_again_what_may_pass(service: Service, status: int) -> None:
    service.answers(status=status, text="busy")
    with pytest.raises(RetryableFailure, match=f"answered {status}"):
        await call(url=service.url)


@pytest.mark.parametrize("status", [300, 304, 400, 401, 403, 404, 409, 422])
async def test_fails_what_cannot_pass(service: Service, status: int) -> None:
    service.answers(status=status)
    with pytest.raises(FatalFailure, match=f"answered {status}"):
        await call(url=service.url)


async def test_an_outcome_rule_overrides_the_default(service: Service) -> None:
    outcomes = [
        {"status": "404", "outcome": "complete"},
        {"status": "402", "outcome": "error", "code": "DECLINED", "message": "the card was declined"},
        {"status": "4xx", "outcome": "retry"},
        {"status": "503", "outcome": "fail", "message": "closed for good"},
    ]
    service.answers_json({"hint": "none"}, status=404)
    assert await call(url=service.url, outcomes=outcomes) == {"hint": "none"}
    service.answers_json({"reason": "limit"}, status=402)
    with pytest.raises(BusinessError) as error:
        await call(url=service.url, outcomes=outcomes)
    assert (error.value.code, error.value.message) == ("DECLINED", "the card was declined")
    assert error.value.variables == {"reason": "limit"}
    service.answers(status=418)
    with pytest.raises(RetryableFailure):
        await call(url=service.url, outcomes=outcomes)
    service.answers(status=503)
    with pytest.raises(FatalFailure, match="closed for good"):
        await call(url=service.url, outcomes=outcomes)


@pytest.mark.parametrize("text", ["[1]", "not json", ""])
async def test_a_business_error_needs_no_json_object(service: Service, text: str) -> None:
    service.answers(status=402, text=text, content_type="application/json")
    with pytest.raises(BusinessError) as error:
        await call(url=service.url, outcomes=[{"status": "402", "outcome": "error", "code": "DECLINED"}])
    assert error.value.variables == {}
    assert "answered 402 Payment Required" in error.value.message


async def test_waits_as_long_as_the_server_asks(service: Service) -> None:
    service.answers(status=503, headers={"Retry-After": "120"})
    with pytest.raises(RetryableFailure) as failure:
        await call(url=service.url)
    assert failure.value.retry_after == timedelta(seconds=120)


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        (None, None),
        ("0", None),
        ("-5", None),
        ("soon", None),
        ("5", timedelta(seconds=5)),
        ("99999999999999999999", LONGEST_WAIT),
        (format_datetime(datetime(2026, 3, 1, 12, 1, tzinfo=UTC), usegmt=True), timedelta(minutes=1)),
        (format_datetime(datetime(2026, 3, 1, 11, 0, tzinfo=UTC), usegmt=True), None),
        (format_datetime(datetime(2099, 1, 1, tzinfo=UTC), usegmt=True), LONGEST_WAIT),
    ],
)
def test_reads_retry_after(value: str | None, wait: timedelta | None) -> None:
    assert retry_after(value, datetime(2026, 3, 1, 12, tzinfo=UTC)) == wait


async def test_shows_the_start_of_an_error_response_on_one_line(service: Service) -> None:
    service.answers(status=500, text="first\n\x1b[31msecond\t" + "x" * 100_000)
    with pytest.raises(RetryableFailure) as failure:
        await call(url=service.url)
    message = str(failure.value)
    assert message.startswith(f"GET {service.url} answered 500 Internal Server Error: first [31msecond xxx")
    assert len(message) < 500


@pytest.mark.parametrize(
    "auth",
    [{"bearer": "token"}, {"basic": {"username": "me", "password": "password"}}],
)
async def test_messages_hold_neither_secrets_nor_the_query(service: Service, auth: dict[str, Any]) -> None:
    async def echo(request: web.BaseRequest) -> web.Response:
        return web.Response(status=500, text=f"cannot do {dict(request.headers)}")

    service.answer = echo
    with pytest.raises(RetryableFailure) as failure:
        await call({"card": "4111"}, url=service.url + "/pay", query={"card": "card"}, auth=auth)
    message = str(failure.value)
    assert "s3cr3t-token" not in message
    assert "bWU6cGE1NSB3b3Jk" not in message
    assert "4111" not in message
    assert "Authorization header>" in message or "<secret token>" in message


# Connections


async def test_a_refused_connection_is_tried_again(service: Service) -> None:
    port = service.port
    async with serving() as other:
        port = other.port
    with pytest.raises(RetryableFailure, match=rf"GET http://127\.0\.0\.1:{port}/x: ConnectError: .*"):
        await call({"q": "private"}, url=f"http://127.0.0.1:{port}/x?y=1", query={"q": "q"})


async def test_a_connection_that_breaks_is_tried_again(service: Service) -> None:
    async def breaks(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    service.answer = breaks
    with pytest.raises(RetryableFailure, match="GET http://127"):
        await call(url=service.url)


async def test_a_server_that_never_answers_is_tried_again(service: Service) -> None:
    async def silent(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    service.answer = silent
    with pytest.raises(RetryableFailure, match=r"no answer within 0\.2 s"):
        await call(url=service.url, seconds=0.2)


async def test_a_cancelled_call_frees_its_connection(service: Service) -> None:
    arrived = asyncio.Event()

    async def silent(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/slow":
            arrived.set()
            await asyncio.Event().wait()
        return web.json_response({"ok": True})

    service.answer = silent
    async with executing(url=service.url + "/{path}", concurrency=1) as executor:
        slow = asyncio.create_task(executor.execute({"path": "slow"}, context(60)))
        await arrived.wait()
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert await executor.execute({"path": "quick"}, context()) == {"ok": True}
