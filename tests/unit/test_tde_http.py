"""What the `http` executor sends, and where to: against real servers on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme
from aiohttp import web
from pydantic import ValidationError

from prokos.resources.http_settings import HttpSettings
from prokos.tde import FatalFailure, RetryableFailure, Secrets
from unit.http_bench import Service, call, context, executing, resolving_to, serving


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as started:
        yield started


# Requests


async def test_expands_the_url_over_the_input(service: Service) -> None:
    await call({"orderId": 42, "order": {"line": "a b"}}, url=service.url + "/orders/{orderId}/{order.line}")
    assert service.requests[0].raw_path == "/orders/42/a%20b"


async def test_sends_query_parameters_by_field(service: Service) -> None:
    data = {"order": {"id": "A&B=1"}, "tags": ["x", "y"], "express": True, "nothing": None}
    query = {"id": "order.id", "tag": "tags", "express": "express", "absent": "nothing"}
    await call(data, url=service.url + "/orders?fixed=1", query=query)
    assert service.requests[0].query_string == "fixed=1&id=A&B=1&tag=x&tag=y&express=true".replace("A&B=1", "A%26B%3D1")


async def test_sends_the_input_as_json_on_post(service: Service) -> None:
    await call({"name": "Jörg"}, url=service.url, method="POST")
    request = service.requests[0]
    assert json.loads(service.bodies[0]) == {"name": "Jörg"}
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Accept"] == "application/json"
    assert request.headers["Idempotency-Key"] == "4711-3"


async def test_sends_one_field_as_body(service: Service) -> None:
    await call({"order": {"lines": [1]}, "other": 2}, url=service.url, method="PUT", body="order.lines")
    assert json.loads(service.bodies[0]) == [1]


async def test_get_has_neither_body_nor_idempotency_key(service: Service) -> None:
    await call({"a": 1}, url=service.url)
    assert service.bodies == [b""]
    assert "Idempotency-Key" not in service.requests[0].headers
    assert "Content-Type" not in service.requests[0].headers


async def test_delete_has_an_idempotency_key(service: Service) -> None:
    await call(url=service.url, method="DELETE")
    assert service.requests[0].headers["Idempotency-Key"] == "4711-3"


async def test_own_headers_replace_and_remove_the_defaults(service: Service) -> None:
    await call(url=service.url, method="POST", headers={"accept": "text/plain", "idempotency-key": "", "X-Site": "B"})
    headers = service.requests[0].headers
    assert headers.getall("Accept") == ["text/plain"]
    assert "Idempotency-Key" not in headers
    assert headers["X-Site"] == "B"


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"bearer": "token"}, "Authorization", "Bearer s3cr3t-token"),
        ({"basic": {"username": "me", "password": "password"}}, "Authorization", "Basic bWU6cGE1NSB3b3Jk"),
        ({"api_key": {"header": "X-Api-Key", "secret": "token"}}, "X-Api-Key", "s3cr3t-token"),
    ],
)
async def test_authenticates_by_secret(service: Service, auth: Any, header: str, value: str) -> None:
    await call(url=service.url, auth=auth)
    assert service.requests[0].headers[header] == value


async def test_uses_no_proxy_of_the_environment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await call(url=service.url) == {"ok": True}


async def test_cookies_of_one_task_do_not_reach_another(service: Service) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        response = web.json_response({})
        response.set_cookie("session", "of-somebody")
        return response

    service.answer = answer
    async with executing(url=service.url) as executor:
        for _ in range(2):
            await executor.execute({}, context())
    assert "Cookie" not in service.requests[1].headers


async def test_runs_as_many_calls_at_once_as_the_executor_may(service: Service) -> None:
    together = asyncio.Barrier(4)

    async def answer(request: web.BaseRequest) -> web.Response:
        await together.wait()
        return web.json_response({})

    service.answer = answer
    async with executing(url=service.url) as executor:
        await asyncio.gather(*(executor.execute({}, context()) for _ in range(4)))
    assert len(service.requests) == 4


# Hostile input


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("../admin", None),
        ("..", None),
        (".", None),
        ("..\\admin", None),
        ("a/b", "/orders/a%2Fb"),
        ("1?x=1", "/orders/1%3Fx%3D1"),
        ("1#top", "/orders/1%23top"),
        ("1&x=1", "/orders/1%26x%3D1"),
        ("1\r\nX-Injected: 1", "/orders/1%0D%0AX-Injected%3A%201"),
        ("%2e%2e%2f", "/orders/%252e%252e%252f"),
        ("@evil.example", "/orders/%40evil.example"),
    ],
)
async def test_a_value_cannot_leave_its_place_in_the_url(service: Service, value: str, path: str | None) -> None:
    made = call({"id": value}, url=service.url + "/orders/{id}")
    if path is None:
        with pytest.raises(FatalFailure, match="climbs"):
            await made
        assert service.requests == []
    else:
        await made
        assert service.requests[0].raw_path == path
        assert "X-Injected" not in service.requests[0].headers


async def test_reserved_expansion_cannot_climb_or_change_the_host(service: Service) -> None:
    with pytest.raises(FatalFailure, match="climbs"):
        await call({"path": "a/../../admin"}, url=service.url + "/files/{+path}")
    with pytest.raises(FatalFailure, match="climbs"):
        await call({"path": "a/%2e%2e/admin"}, url=service.url + "/files/{+path}")
    assert service.requests == []


async def test_the_input_cannot_append_to_the_host() -> None:
    with pytest.raises(ValidationError, match="the input decides the host"):
        HttpSettings(url="https://api.example{+path}", auth={"bearer": "token"})
    with pytest.raises(ValidationError, match="the input decides the host"):
        HttpSettings(url="https://{host}/x", auth={"bearer": "token"})
    assert HttpSettings(url="https://api.example{/path}{?q}", auth={"bearer": "token"})


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://127.0.0.1/x", "http://me:pw@127.0.0.1/", "//x", ""])
async def test_refuses_a_url_of_the_input_that_is_not_plain_http(url: str) -> None:
    with pytest.raises(FatalFailure):
        await call({"url": url}, url="{+url}")


async def test_names_the_variable_that_the_input_lacks(service: Service) -> None:
    with pytest.raises(FatalFailure, match=r"spec\.http\.url needs the field 'orderId'"):
        await call({"order": 1}, url=service.url + "/orders/{orderId}")
    with pytest.raises(FatalFailure, match=r"spec\.http\.query\.id needs the field 'orderId'"):
        await call({"order": 1}, url=service.url, query={"id": "orderId"})
    with pytest.raises(FatalFailure, match=r"spec\.http\.body needs the field 'order\.x'"):
        await call({"order": 1}, url=service.url, method="POST", body="order.x")


@pytest.mark.parametrize("empty", [None, "", [], {}])
async def test_an_empty_value_does_not_call_the_collection(service: Service, empty: Any) -> None:
    with pytest.raises(FatalFailure, match="needs a value for 'orderId'"):
        await call({"orderId": empty}, url=service.url + "/orders/{orderId}", method="DELETE")
    assert service.requests == []


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "b\r\nX-Injected: 1"},
        {"X-A": "b\nc"},
        {"X A": "b"},
        {"X-A:": "b"},
        {"Host": "x"},
        {"Authorization": "x"},
    ],
)
def test_refuses_headers_that_could_inject(headers: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="header"):
        HttpSettings(url="https://api.example/", headers=headers)


async def test_refuses_a_secret_with_a_line_break_without_showing_it() -> None:
    with pytest.raises(FatalFailure, match="secret 'split' cannot be sent") as refused:
        await call(url="https://api.example/", auth={"bearer": "split"})
    assert "a\nb" not in str(refused.value)


# Addresses


async def test_refuses_the_metadata_service_by_address() -> None:
    with pytest.raises(FatalFailure, match=r"169\.254\.169\.254.*metadata.*spec\.http\.allowedNetworks"):
        await call(url="http://169.254.169.254/latest/meta-data/", allowed_networks=[])


async def test_refuses_a_name_that_resolves_to_a_private_address(service: Service) -> None:
    with pytest.raises(FatalFailure, match=r"pay\.example resolves to 127\.0\.0\.1"):
        await call(
            url=f"http://pay.example:{service.port}/",
            resolver=resolving_to("127.0.0.1"),
            allowed_networks=["10.0.0.0/8"],
        )
    assert service.requests == []


async def test_connects_to_the_address_that_was_checked(service: Service) -> None:
    answers = [["127.0.0.1"], ["169.254.169.254"]]
    asked = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    assert await call(url=f"http://pay.example:{service.port}/", resolver=rebinding) == {"ok": True}
    assert asked == ["pay.example"]
    assert service.requests[0].headers["Host"] == f"pay.example:{service.port}"


async def test_tries_the_next_address_when_one_does_not_answer(service: Service) -> None:
    resolver = resolving_to("127.0.0.2", "127.0.0.1")  # the service listens on the second only
    assert await call(url=f"http://pay.example:{service.port}/", resolver=resolver) == {"ok": True}


async def test_follows_no_redirect_and_names_its_target(service: Service) -> None:
    service.answers(status=302, headers={"Location": "http://169.254.169.254/latest/"})
    with pytest.raises(FatalFailure, match=r"302 Found and Location 'http://169\.254\.169\.254/latest/'"):
        await call(url=service.url)
    assert len(service.requests) == 1


async def test_a_bad_network_is_refused_in_the_manifest() -> None:
    with pytest.raises(ValidationError, match="host bits"):
        HttpSettings(url="http://x/", allowed_networks=["10.0.0.1/8"])


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def serve_tls(authority: trustme.CA, name: str) -> contextlib.AbstractAsyncContextManager[Service]:
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(server_side)
    return serving(server_side)


async def test_checks_the_certificate_for_the_name_although_it_connects_to_an_address(authority: trustme.CA) -> None:
    secrets = Secrets({"ca": authority.cert_pem.bytes().decode()})
    async with await serve_tls(authority, "pay.example") as service:
        here: dict[str, Any] = {"resolver": resolving_to("127.0.0.1"), "secrets": secrets, "ca_secret": "ca"}
        assert await call(url=f"https://pay.example:{service.port}/", **here) == {"ok": True}
        with pytest.raises(RetryableFailure, match="certificate"):
            await call(url=f"https://other.example:{service.port}/", **here)


async def test_trusts_no_unknown_authority(authority: trustme.CA) -> None:
    async with await serve_tls(authority, "pay.example") as service:
        with pytest.raises(RetryableFailure, match="certificate verify failed"):
            await call(url=f"https://pay.example:{service.port}/", resolver=resolving_to("127.0.0.1"))


async def test_refuses_an_authority_that_is_no_certificate() -> None:
    with pytest.raises(ValueError, match="caSecret"):
        await call(url="https://pay.example/", ca_secret="token")
