"""Credentials: OAuth 2.0 tokens, mutual TLS, API keys, and keeping all of them out of what leaves the worker."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import traceback
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, quote

import pytest
import structlog
import trustme
from aiohttp import web
from pydantic import ValidationError

from prokos.resources.http_settings import HttpSettings
from prokos.tde import BusinessError, FatalFailure, RetryableFailure, Secrets
from prokos.tde.http.executor import HttpExecutor
from unit.http_bench import Service, call, context, executing, resolving_to, serving


class Issuer:
    """A token endpoint and the service that takes its tokens."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.asked: list[dict[str, list[str]]] = []
        self.good: set[str] = set()
        self.lifetime: Any = 3600
        self.delay = asyncio.Event()
        self.delay.set()
        self.refusal: web.Response | None = None
        service.answer = self.answer

    async def answer(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/token":
            self.asked.append(parse_qs(self.service.bodies[-1].decode()))
            await self.delay.wait()
            if self.refusal is not None:
                return web.Response(body=self.refusal.body, status=self.refusal.status, headers=self.refusal.headers)
            token = f"secret-token-{len(self.asked)}"
            self.good = {token}
            return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime})
        token = request.headers.get("Authorization", "").partition(" ")[2]
        return web.json_response({"path": request.path}, status=200 if token in self.good else 401)

    def settings(self, **oauth2: Any) -> dict[str, Any]:
        auth = {"token_url": f"{self.service.url}/token", "client_id": "me:1", "client_secret": "token", **oauth2}
        return {"url": self.service.url + "/orders", "auth": {"oauth2": auth}}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as started:
        yield started


@pytest.fixture
def issuer(service: Service) -> Issuer:
    return Issuer(service)


# OAuth 2.0


async def test_fetches_a_token_once_for_many_tasks(issuer: Issuer) -> None:
    async with executing(**issuer.settings(scopes=["read", "write"], parameters={"audience": "orders"})) as executor:
        issuer.delay.clear()
        tasks = [asyncio.create_task(executor.execute({}, context())) for _ in range(4)]
        while not issuer.asked:
            await asyncio.sleep(0)
        issuer.delay.set()
        assert await asyncio.gather(*tasks) == [{"path": "/orders"}] * 4
        await executor.execute({}, context())
    form = {"grant_type": ["client_credentials"], "scope": ["read write"], "audience": ["orders"]}
    assert issuer.asked == [form]
    authorization = issuer.service.requests[0].headers["Authorization"].partition(" ")[2]
    assert base64.b64decode(authorization).decode() == f"{quote('me:1')}:s3cr3t-token"


async def test_can_send_the_client_in_the_form(issuer: Issuer) -> None:
    await call(**issuer.settings(client_authentication="body"))
    assert issuer.asked[0]["client_id"] == ["me:1"]
    assert issuer.asked[0]["client_secret"] == ["s3cr3t-token"]
    assert "Authorization" not in issuer.service.requests[0].headers


async def test_a_token_that_the_service_refuses_is_renewed_once(issuer: Issuer) -> None:
    async with executing(**issuer.settings(), method="POST") as executor:
        await executor.execute({"a": 1}, context())
        issuer.good.clear()  # it was revoked
        assert await executor.execute({"a": 2}, context()) == {"path": "/orders"}
        assert len(issuer.asked) == 2
        assert json.loads(issuer.service.bodies[-1]) == {"a": 2}


async def test_a_service_that_refuses_every_token_is_not_asked_for_ever(issuer: Issuer) -> None:
    answer = issuer.answer

    async def revoking(request: web.BaseRequest) -> web.Response:
        issuer.good.clear()
        response = await answer(request)
        if request.path == "/token":
            issuer.good.clear()
        return response

    issuer.service.answer = revoking
    with pytest.raises(FatalFailure, match="answered 401 Unauthorized"):
        await call(**issuer.settings())
    assert len(issuer.asked) == 2


@pytest.mark.parametrize(("lifetime", "asked"), [(1, 2), ("1", 2), (None, 1), ("soon", 1), (3600, 1), (-5, 1)])
async def test_a_token_is_renewed_before_its_end(issuer: Issuer, lifetime: Any, asked: int) -> None:
    issuer.lifetime = lifetime
    clock = [0.0]
    async with executing(**issuer.settings()) as executor:
        assert executor._service is not None
        assert executor._service.tokens is not None
        executor._service.tokens._clock = lambda: clock[0]
        await executor.execute({}, context())
        clock[0] = 0.79
        await executor.execute({}, context())
        assert len(issuer.asked) == 1
        clock[0] = 0.81  # a fifth of a second before the end of one that lives for a second
        await executor.execute({}, context())
    assert len(issuer.asked) == asked


@pytest.mark.parametrize(
    ("status", "body", "failure", "problem"),
    [
        (
            401,
            {"error": "invalid_client", "error_description": "no s3cr3t-token"},
            FatalFailure,
            "invalid_client: no <",
        ),
        (400, {"error": "invalid_scope"}, FatalFailure, r"invalid_scope; check spec\.http\.auth\.oauth2"),
        (403, None, FatalFailure, "403 Forbidden; check"),
        (302, None, FatalFailure, "302 Found"),
        (503, None, RetryableFailure, "503 Service Unavailable"),
        (429, {"error": "slow_down"}, RetryableFailure, "429 Too Many"),
        (200, "no json", RetryableFailure, "is no JSON"),
        (200, {"token": "x"}, FatalFailure, "without an access_token"),
        (200, {"access_token": "a\nb"}, FatalFailure, "without an access_token that can be sent"),
        (200, {"access_token": "x", "token_type": "mac"}, FatalFailure, "type 'mac'"),
    ],
)
async def test_says_what_the_token_endpoint_does_not_do(
    issuer: Issuer, status: int, body: Any, failure: type[Exception], problem: str
) -> None:
    text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
    issuer.refusal = web.Response(text=text, status=status, headers={"Retry-After": "7", "Location": "/elsewhere"})
    with pytest.raises(failure, match=problem) as raised:
        await call(**issuer.settings())
    assert f"{issuer.service.url}/token" in str(raised.value)
    assert [request.path for request in issuer.service.requests] == ["/token"]
    if isinstance(raised.value, RetryableFailure) and status in (429, 503):
        assert raised.value.retry_after is not None


async def test_a_cancelled_task_does_not_take_the_token_from_the_others(issuer: Issuer) -> None:
    async with executing(**issuer.settings()) as executor:
        issuer.delay.clear()
        first, second = (asyncio.create_task(executor.execute({}, context())) for _ in range(2))
        while not issuer.asked:
            await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        issuer.delay.set()
        assert await second == {"path": "/orders"}
    assert len(issuer.asked) == 1


async def test_a_worker_can_stop_while_a_token_is_fetched(issuer: Issuer) -> None:
    issuer.delay.clear()
    async with executing(**issuer.settings()) as executor:
        task = asyncio.create_task(executor.execute({}, context()))
        while not issuer.asked:
            await asyncio.sleep(0)
        task.cancel()


async def test_the_token_endpoint_is_under_the_same_guard(issuer: Issuer) -> None:
    with pytest.raises(FatalFailure, match=r"169\.254\.169\.254.*metadata"):
        await call(**issuer.settings(token_url="http://169.254.169.254/token"))
    with pytest.raises(FatalFailure, match=r"login\.example resolves to 127\.0\.0\.1"):
        await call(
            **issuer.settings(token_url=f"http://login.example:{issuer.service.port}/token"),
            resolver=resolving_to("127.0.0.1"),
            allowed_networks=[],
        )
    assert issuer.asked == []


@pytest.mark.parametrize("url", ["ftp://x/token", "https://{host}/token", "https://me:pw@x/token", "https://", "token"])
def test_refuses_a_token_url_that_is_no_fixed_address(url: str) -> None:
    oauth2 = {"token_url": url, "client_id": "me", "client_secret": "token"}
    with pytest.raises(ValidationError):
        HttpSettings.model_validate({"url": "https://x/", "auth": {"oauth2": oauth2}})


async def test_an_endless_token_answer_is_cut_off(issuer: Issuer) -> None:
    issuer.refusal = web.Response(body=b" " * 200_000)
    with pytest.raises(FatalFailure, match="exceeds"):
        await call(**issuer.settings())


# API keys


async def test_sends_an_api_key_as_query_parameter(service: Service) -> None:
    await call(
        {"q": "a"}, url=service.url + "?x=1", query={"q": "q"}, auth={"api_key": {"query": "k", "secret": "token"}}
    )
    assert service.requests[0].query_string == "x=1&q=a&k=s3cr3t-token"


@pytest.mark.parametrize("api_key", [{}, {"header": "X", "query": "y"}, {"header": "X Y"}, {"header": "Host"}])
def test_an_api_key_has_one_place(api_key: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        HttpSettings.model_validate({"url": "https://x/", "auth": {"api_key": {**api_key, "secret": "token"}}})


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def identity(authority: trustme.CA) -> dict[str, str]:
    certificate = authority.issue_cert("worker@prokos.example")
    return {
        "ca": authority.cert_pem.bytes().decode(),
        "cert": "".join(pem.bytes().decode() for pem in certificate.cert_chain_pems),
        "key": certificate.private_key_pem.bytes().decode(),
    }


MUTUAL = {
    "ca_secret": "ca",
    "client_certificate": {"certificate_secret": "cert", "key_secret": "key"},
    "resolver": resolving_to("127.0.0.1"),
}


def demanding(authority: trustme.CA) -> ssl.SSLContext:
    """A server that wants to see a client's certificate of this authority."""
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("pay.example").configure_cert(server_side)
    authority.configure_trust(server_side)
    server_side.verify_mode = ssl.CERT_REQUIRED
    return server_side


async def test_shows_its_certificate_to_a_server_that_wants_one(authority: trustme.CA) -> None:
    async with serving(demanding(authority)) as service:
        url = f"https://pay.example:{service.port}/"
        assert await call(url=url, secrets=Secrets(identity(authority)), **MUTUAL) == {"ok": True}
        assert service.requests[0].transport is not None
        peer = service.requests[0].get_extra_info("peercert") or {}
        assert ("email", "worker@prokos.example") in peer["subjectAltName"]
        with pytest.raises(RetryableFailure):
            await call(url=url, secrets=Secrets(identity(authority)), ca_secret="ca", resolver=MUTUAL["resolver"])
        foreign = identity(authority) | {k: v for k, v in identity(trustme.CA()).items() if k != "ca"}
        with pytest.raises(RetryableFailure):
            await call(url=url, secrets=Secrets(foreign), **MUTUAL)


async def test_takes_an_encrypted_key_with_its_password(authority: trustme.CA) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    secrets = identity(authority)
    key = load_pem_private_key(secrets["key"].encode(), None)
    encryption = BestAvailableEncryption(b"open sesame")
    secrets["key"] = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()
    secrets["password"] = "open sesame"
    certificate = {**MUTUAL["client_certificate"], "password_secret": "password"}
    async with serving(demanding(authority)) as service:
        url = f"https://pay.example:{service.port}/"
        assert await call(url=url, secrets=Secrets(secrets), **MUTUAL | {"client_certificate": certificate})
        for wrong in ({}, {"password_secret": "ca"}):
            certificate = {**MUTUAL["client_certificate"], **wrong}
            with pytest.raises(ValueError, match=r"spec\.http\.clientCertificate"):
                await call(url=url, secrets=Secrets(secrets), **MUTUAL | {"client_certificate": certificate})


async def test_says_which_secrets_are_no_certificate_and_key(authority: trustme.CA) -> None:
    good = identity(authority)
    for bad in ({"key": "none"}, {"cert": "none"}, {"key": identity(authority)["key"]}):
        with pytest.raises(
            ValueError, match=r"the secrets 'cert' and 'key' of spec\.http\.clientCertificate"
        ) as raised:
            await call(url="https://pay.example/", secrets=Secrets(good | bad), **MUTUAL)
        assert "PRIVATE KEY" not in "".join(traceback.format_exception(raised.value))


def test_a_client_certificate_goes_to_a_known_host() -> None:
    with pytest.raises(ValidationError, match="the secret of clientCertificate anywhere"):
        HttpSettings.model_validate({"url": "{+url}", "client_certificate": MUTUAL["client_certificate"]})


async def test_a_token_is_fetched_with_the_same_authority_and_certificate(authority: trustme.CA) -> None:
    async with serving(demanding(authority)) as service:
        issuer = Issuer(service)
        base = f"https://pay.example:{service.port}"
        settings = issuer.settings(token_url=f"{base}/token") | {"url": f"{base}/orders"}
        secrets = Secrets({**identity(authority), "token": "s3cr3t-token"})
        assert await call(**settings, secrets=secrets, **MUTUAL) == {"path": "/orders"}


# Planted secrets

PLANTED = {
    "token": "PLANTED-bearer-1",
    "password": "PLANTED pass/word+2",
    "key": "PLANTED/key=3",
    "client": "PLANTED-client-4",
}
ISSUED = "PLANTED-issued-5"


def ways() -> list[dict[str, Any]]:
    return [
        {"bearer": "token"},
        {"basic": {"username": "me", "password": "password"}},
        {"api_key": {"header": "X-Key", "secret": "key"}},
        {"api_key": {"query": "key", "secret": "key"}},
        {"oauth2": {"token_url": "/token", "client_id": "me", "client_secret": "client"}},
        {
            "oauth2": {
                "token_url": "/token",
                "client_id": "me",
                "client_secret": "client",
                "client_authentication": "body",
            }
        },
    ]


def forms(secret: str) -> list[str]:
    encoded = base64.b64encode(f"me:{secret}".encode()).decode()
    return [secret, quote(secret, safe=""), encoded, encoded[8:]]


@pytest.mark.parametrize("auth", ways(), ids=lambda auth: "-".join(auth))
@pytest.mark.parametrize("status", [200, 200.5, 402, 404, 500, 302])
async def test_planted_secrets_come_out_nowhere(
    service: Service, auth: dict[str, Any], status: float, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    """A service that echoes everything it was sent: in the body, in headers, in a redirect, as an error's message."""

    async def echo(request: web.BaseRequest) -> web.Response:
        if request.path == "/token":
            return web.json_response({"access_token": ISSUED})
        seen = {"headers": dict(request.headers), "url": str(request.url), "raw": request.raw_path}
        echoed = json.dumps([seen, list(seen["headers"].values()), "x" * 290 + str(seen)])
        sent = request.headers.get("Authorization") or request.headers.get("X-Key") or request.raw_path
        headers = {"X-Echo": sent, "Location": "/" + "y" * 280 + sent}
        if status == 200.5:
            return web.Response(text=echoed, status=200, headers=headers)
        body = json.dumps({"seen": seen, "all": echoed, str(request.headers.get("X-Key")): 1})
        return web.Response(text=body, content_type="application/json", status=int(status), headers=headers)

    service.answer = echo
    if "oauth2" in auth:
        auth = {"oauth2": {**auth["oauth2"], "token_url": service.url + "/token"}}
    outcomes = [
        {"status": "402", "outcome": "error", "code": "X", "code_from": "seen.url", "message_from": "all"},
        {"status": "404", "outcome": "fail", "message_from": "all"},
    ]
    caplog.set_level(0)
    came_out = []
    async with executing(
        url=service.url + "/orders", auth=auth, outcomes=outcomes, secrets=Secrets(PLANTED), result_variable="answer"
    ) as executor:
        try:
            came_out.append(json.dumps(await executor.execute({}, context())))
        except (BusinessError, FatalFailure, RetryableFailure) as error:
            came_out += ["".join(traceback.format_exception(error)), repr(vars(error)), str(error.__context__)]
        structlog.get_logger().info("worker", settings=repr(executor.settings), environment=repr(executor.environment))
        came_out += [repr(executor), str(vars(executor))]
    captured = capfd.readouterr()
    came_out += [caplog.text, captured.out, captured.err]
    assert "<" in came_out[0]
    for text in came_out:
        for secret in [*PLANTED.values(), ISSUED]:
            for form in forms(secret):
                assert form not in text


async def test_a_short_secret_does_not_tear_holes_into_results(service: Service) -> None:
    service.answers_json({"text": "a banana"})
    output = await call(url=service.url, auth={"bearer": "pin"}, secrets=Secrets({"pin": "an"}))
    assert output == {"text": "a banana"}


@pytest.mark.parametrize("value", ["", "a\nb", "a\x00b", " a", "ключ"])
async def test_a_secret_that_no_header_can_hold_stops_the_worker_without_showing_it(value: str) -> None:
    for auth in ({"bearer": "odd"}, {"api_key": {"header": "X-Key", "secret": "odd"}}):
        with pytest.raises(FatalFailure, match="secret 'odd' cannot be sent") as raised:
            await call(url="https://x/", auth=auth, secrets=Secrets({"odd": value}))
        assert len(value) < 3 or value not in str(raised.value)


def test_the_executor_is_the_one_of_its_type() -> None:
    from prokos.tde.types import executor_class

    assert executor_class("http") is HttpExecutor
