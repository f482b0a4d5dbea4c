"""Redirects: followed only if asked, judged at each hop, and never with credentials to another origin."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme
from aiohttp import web

from prokos.tde import FatalFailure, RetryableFailure, Secrets
from unit.http_bench import Service, call, resolving_to, serving


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as started:
        yield started


@pytest.fixture
async def other() -> AsyncIterator[Service]:
    async with serving() as started:
        yield started


def redirects(service: Service, location: str, status: int = 302, path: str = "/") -> None:
    """Requests of a path are redirected, others answered."""

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path == path:
            return web.Response(status=status, headers={"Location": location})
        return web.json_response({"path": request.path_qs})

    service.answer = answer


async def test_follows_a_relative_redirect_with_credentials(service: Service) -> None:
    redirects(service, "here?x=1#top")
    assert await call(url=service.url, max_redirects=1, auth={"bearer": "token"}) == {"path": "/here?x=1"}
    assert [request.headers["Authorization"] for request in service.requests] == ["Bearer s3cr3t-token"] * 2


@pytest.mark.parametrize(
    ("status", "method", "followed"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (301, "PUT", "PUT"),
        (307, "POST", "POST"),
        (308, "PUT", "PUT"),
        (302, "HEAD", "HEAD"),
        (302, "GET", "GET"),
    ],
)
async def test_keeps_method_and_body_where_the_status_says_so(
    service: Service, status: int, method: str, followed: str
) -> None:
    redirects(service, "/there", status)
    await call({"a": 1}, url=service.url, method=method, max_redirects=1)
    assert service.requests[1].method == followed
    with_body = followed in ("POST", "PUT")
    assert service.bodies[1] == (b'{"a":1}' if with_body else b"")
    assert ("Content-Type" in service.requests[1].headers) is with_body


@pytest.mark.parametrize(
    "auth",
    [
        {"bearer": "token"},
        {"basic": {"username": "me", "password": "token"}},
        {"api_key": {"header": "X-Key", "secret": "token"}},
        {"api_key": {"query": "key", "secret": "token"}},
    ],
)
@pytest.mark.parametrize("status", [302, 307])
async def test_credentials_and_headers_stay_with_their_origin(
    service: Service, other: Service, auth: dict[str, Any], status: int
) -> None:
    redirects(service, f"{other.url}/there", status)
    headers = {"X-Tenant": "acme"}
    await call({"a": 1}, url=service.url, method="POST", headers=headers, auth=auth, max_redirects=2)
    seen = other.requests[0]
    assert {name.lower() for name in seen.headers} <= {
        "host", "accept", "accept-encoding", "user-agent", "content-type", "content-length"
    }  # fmt: skip
    assert seen.path_qs == "/there"


async def test_a_way_back_is_not_authenticated_again(service: Service, other: Service) -> None:
    redirects(service, f"{other.url}/")
    redirects(other, f"{service.url}/admin")
    assert await call(url=service.url, max_redirects=2, auth={"bearer": "token"}) == {"path": "/admin"}
    assert "Authorization" in service.requests[0].headers
    assert "Authorization" not in service.requests[1].headers


async def test_stops_after_as_many_redirects_as_it_may_follow(service: Service) -> None:
    redirects(service, "/")
    with pytest.raises(FatalFailure, match=r"more than 3 redirects \(spec\.http\.maxRedirects\)"):
        await call(url=service.url, max_redirects=3)
    assert len(service.requests) == 4


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://[fd00:ec2::254]/",
        "//169.254.169.254/",
    ],
)
async def test_judges_the_address_of_each_hop(service: Service, target: str) -> None:
    redirects(service, target)
    with pytest.raises(FatalFailure, match=r"refused to call .*(169\.254\.169\.254|fd00:ec2::254)"):
        await call(url=service.url, max_redirects=5)


async def test_judges_the_name_of_each_hop_anew(service: Service) -> None:
    redirects(service, f"http://pay.example:{service.port}/again")
    asked = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if host == "127.0.0.1" else ["10.0.0.1"]

    with pytest.raises(FatalFailure, match=r"pay\.example resolves to 10\.0\.0\.1"):
        await call(url=service.url, max_redirects=5, resolver=rebinding)
    assert asked == ["127.0.0.1", "pay.example"]


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("ftp://pay.example/x", "no HTTP address"),
        ("file:///etc/passwd", "no HTTP address"),
        ("javascript:alert(1)", "no HTTP address|no valid address"),
        ("http://me:secret@127.0.0.1/", "address with credentials"),
        ("http://[::1", "no valid address"),
        ("http://0251.0376.0251.0376/", "no valid address"),
        ("http://127.0.0.1:99999/", "no HTTP address"),
        ("http://127.0.0.1:0/", "no HTTP address"),
    ],
)
async def test_refuses_a_target_that_is_no_plain_address(service: Service, location: str, problem: str) -> None:
    redirects(service, location)
    with pytest.raises(FatalFailure, match=problem) as refused:
        await call(url=service.url, max_redirects=5)
    assert "secret" not in str(refused.value)
    assert len(service.requests) == 1


async def test_an_outcome_that_names_the_redirect_goes_before(service: Service) -> None:
    redirects(service, "/there", 303)
    outcomes = [{"status": "303", "outcome": "complete"}]
    output = await call(url=service.url, max_redirects=5, outcomes=outcomes, result_variable="answer")
    assert output["answer"]["status"] == 303
    assert output["answer"]["headers"]["location"] == "/there"


async def test_a_redirect_without_a_target_is_what_its_status_says(service: Service) -> None:
    service.answers(status=302)
    with pytest.raises(FatalFailure, match="answered 302 Found"):
        await call(url=service.url, max_redirects=5)


async def test_does_not_go_from_https_to_http_nor_show_its_certificate_elsewhere(service: Service) -> None:
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("pay.example").configure_cert(server_side)
    client = authority.issue_cert("me@prokos.example")
    secrets = Secrets({
        "ca": authority.cert_pem.bytes().decode(),
        "cert": client.cert_chain_pems[0].bytes().decode(),
        "key": client.private_key_pem.bytes().decode(),
    })  # fmt: skip
    settings: dict[str, Any] = {
        "ca_secret": "ca", "max_redirects": 5, "secrets": secrets, "resolver": resolving_to("127.0.0.1")
    }  # fmt: skip
    async with serving(server_side) as tls:
        redirects(tls, service.url)
        with pytest.raises(FatalFailure, match="from https to http"):
            await call(url=f"https://pay.example:{tls.port}/", **settings)
        assert service.requests == []
        redirects(tls, f"https://other.example:{tls.port}/there")
        with pytest.raises(RetryableFailure, match="certificate"):  # followed, but that name is not in it
            await call(url=f"https://pay.example:{tls.port}/", **settings)
        certificate = {"certificate_secret": "cert", "key_secret": "key"}
        with pytest.raises(FatalFailure, match="where the client certificate must not be shown"):
            await call(url=f"https://pay.example:{tls.port}/", client_certificate=certificate, **settings)


async def test_a_body_that_was_sent_is_sent_again_in_full(service: Service, other: Service) -> None:
    redirects(service, f"{other.url}/there", 308)
    data = {"text": "x" * 500_000}
    await call(data, url=service.url, method="POST", max_redirects=1)
    assert json.loads(other.bodies[0]) == data
