"""TLS and credentials, over real connections to a gateway and a token endpoint on loopback."""

from __future__ import annotations

import base64
import contextlib
import ssl
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trustme
from aiohttp import web

from prokos.engine import AccessDeniedError, Connection, EngineClient, EngineUnavailableError
from prokos.engine.connection import Basic, OAuth
from unit.gateway import Gateway, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def server_credentials(authority: trustme.CA) -> grpc.ServerCredentials:
    certificate = authority.issue_cert("127.0.0.1")
    chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
    return grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])


@pytest.fixture
async def gateway(authority: trustme.CA) -> AsyncIterator[Gateway]:
    async with serving(Gateway(), server_credentials(authority)) as running:
        yield running


class TokenEndpoint:
    """An OAuth 2 authorization server: client credentials in, bearer tokens out."""

    def __init__(self) -> None:
        self.url = ""
        self.lifetime = 3600
        self.requests: list[dict[str, str]] = []

    async def token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        form["authorization"] = request.headers.get("Authorization", "")
        self.requests.append(form)
        if form["authorization"] != "Basic " + base64.b64encode(b"client:s3cr3t").decode():
            return web.json_response({"error": "invalid_client"}, status=401)
        token = f"token-{len(self.requests)}"
        return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime})


@contextlib.asynccontextmanager
async def serving_tokens(endpoint: TokenEndpoint, authority: trustme.CA) -> AsyncIterator[TokenEndpoint]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    app = web.Application()
    app.router.add_post("/token", endpoint.token)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    endpoint.url = f"https://127.0.0.1:{runner.addresses[0][1]}/token"
    try:
        yield endpoint
    finally:
        await runner.cleanup()


@pytest.fixture
async def tokens(authority: trustme.CA) -> AsyncIterator[TokenEndpoint]:
    async with serving_tokens(TokenEndpoint(), authority) as running:
        yield running


def oauth(tokens: TokenEndpoint, **changes: Any) -> OAuth:
    return OAuth(**{"token_url": tokens.url, "client_id": "client", "client_secret": "s3cr3t", **changes})


async def test_trusts_the_authority_it_is_given(gateway, ca_file):
    async with EngineClient(Connection(gateway.address, tls=True, ca_file=ca_file)) as client:
        assert (await client.topology()).ready


async def test_sends_no_credentials_when_there_are_none(gateway, ca_file):
    async with EngineClient(Connection(gateway.address, tls=True, ca_file=ca_file)) as client:
        await client.topology()
    assert "authorization" not in gateway.metadata[0]


async def test_refuses_a_server_of_another_authority(gateway, tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    connection = Connection(gateway.address, tls=True, ca_file=str(tmp_path / "other.pem"), basic=Basic("demo", "pa55"))
    async with EngineClient(connection) as client:
        with pytest.raises(EngineUnavailableError):
            await client.topology()
    assert gateway.calls == []


async def test_does_not_fall_back_to_plain_text(ca_file):
    async with (
        serving(Gateway()) as plain,
        EngineClient(Connection(plain.address, tls=True, ca_file=ca_file)) as client,
    ):
        with pytest.raises(EngineUnavailableError):
            await client.topology()
        assert plain.calls == []


async def test_sends_user_and_password(gateway, ca_file):
    connection = Connection(gateway.address, tls=True, ca_file=ca_file, basic=Basic("demo", "pa55:wörd"))
    async with EngineClient(connection) as client:
        await client.topology()
    expected = base64.b64encode("demo:pa55:wörd".encode()).decode()
    assert gateway.metadata[0]["authorization"] == f"Basic {expected}"


async def test_credentials_that_the_engine_refuses_are_not_sent_again_and_again(gateway, ca_file):
    gateway.failures = [(grpc.StatusCode.UNAUTHENTICATED, "bad password")]
    connection = Connection(gateway.address, tls=True, ca_file=ca_file, basic=Basic("demo", "pa55"))
    async with EngineClient(connection) as client:
        with pytest.raises(AccessDeniedError, match="bad password"):
            await client.publish_message("ready", "")
    assert len(gateway.calls) == 1


async def test_sends_the_token_that_the_token_endpoint_gives(gateway, ca_file, tokens):
    credentials = oauth(tokens, audience="zeebe", scope="all")
    async with EngineClient(Connection(gateway.address, tls=True, ca_file=ca_file, oauth=credentials)) as client:
        await client.topology()
    assert gateway.metadata[0]["authorization"] == "Bearer token-1"
    assert tokens.requests[0]["grant_type"] == "client_credentials"
    assert tokens.requests[0]["audience"] == "zeebe"
    assert tokens.requests[0]["scope"] == "all"


async def test_asks_no_token_endpoint_of_an_authority_that_is_not_trusted(gateway, ca_file):
    async with serving_tokens(TokenEndpoint(), trustme.CA()) as tokens:
        async with EngineClient(Connection(gateway.address, tls=True, ca_file=ca_file, oauth=oauth(tokens))) as client:
            with pytest.raises(EngineUnavailableError):
                await client.topology()
        assert tokens.requests == []


async def test_uses_a_token_until_it_expires(gateway, ca_file, tokens):
    async with EngineClient(Connection(gateway.address, tls=True, ca_file=ca_file, oauth=oauth(tokens))) as client:
        for _ in range(3):
            await client.topology()
    assert len(tokens.requests) == 1


async def test_gets_a_new_token_for_one_that_expires(gateway, ca_file, tokens):
    tokens.lifetime = 1
    async with EngineClient(Connection(gateway.address, tls=True, ca_file=ca_file, oauth=oauth(tokens))) as client:
        await client.topology()
        await client.topology()
    assert [metadata["authorization"] for metadata in gateway.metadata] == ["Bearer token-1", "Bearer token-2"]


async def test_a_client_that_the_token_endpoint_refuses_is_denied_access(gateway, ca_file, tokens):
    credentials = oauth(tokens, client_secret="wr0ng")
    async with EngineClient(Connection(gateway.address, tls=True, ca_file=ca_file, oauth=credentials)) as client:
        with pytest.raises(AccessDeniedError) as caught:
            await client.publish_message("ready", "")
    assert "invalid_client" in str(caught.value)
    assert "wr0ng" not in str(caught.value)
    assert gateway.calls == []


async def test_an_unreachable_token_endpoint_is_an_engine_that_cannot_be_reached_now(gateway, ca_file):
    credentials = OAuth("https://127.0.0.1:1/token", "client", "s3cr3t")
    async with EngineClient(Connection(gateway.address, tls=True, ca_file=ca_file, oauth=credentials)) as client:
        with pytest.raises(EngineUnavailableError):
            await client.topology()


async def test_asks_for_no_token_over_plain_http(gateway, ca_file):
    credentials = OAuth("http://127.0.0.1:1/token", "client", "s3cr3t")
    async with EngineClient(Connection(gateway.address, tls=True, ca_file=ca_file, oauth=credentials)) as client:
        with pytest.raises(AccessDeniedError, match="insecure_transport"):
            await client.topology()
