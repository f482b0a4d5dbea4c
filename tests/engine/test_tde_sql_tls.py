"""The `sql` executor over TLS, and that no password gets out of it."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import structlog
import trustme

from engine.sql_servers import DebianPostgreSql, MariaDb
from prokos.tde import FatalFailure, RetryableFailure
from unit.sql_bench import context, executing, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    Encrypted = DebianPostgreSql | MariaDb

DATABASES = {"postgresql": "postgres", "mysql": "orders"}
ENCRYPTED = {
    "postgresql": "SELECT 1 AS n FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl",
    "mysql": "SELECT 1 AS n FROM information_schema.session_status WHERE variable_name = 'Ssl_version'"
    " AND variable_value <> ''",
}
SLEEP = {"postgresql": "SELECT 1 AS n FROM pg_sleep(600)", "mysql": "SELECT SLEEP(600) AS n"}


@pytest.fixture(scope="module", params=[DebianPostgreSql, MariaDb], ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest) -> Iterator[Encrypted]:
    with request.param.running() as started:
        yield started


def url(server: Encrypted, host: str = "localhost", user: str = "prokos", password: str | None = None) -> str:
    credentials = f"{user}:{quote(password or server.password, safe='')}"
    return f"{server.name}://{credentials}@{host}:{server.port}/{DATABASES[server.name]}"


def options(server: Encrypted, host: str = "localhost", **tls: Any) -> dict[str, Any]:
    secrets = {"ca": server.certificates.authority}
    return {"url": url(server, host), "secrets": secrets, "connect_timeout": "30s", "tls": tls}


async def is_encrypted(server: Encrypted, **settings: Any) -> bool:
    return bool((await run(ENCRYPTED[server.name], **settings))["rowCount"])


async def test_a_certificate_of_a_trusted_authority_is_accepted(server: Encrypted) -> None:
    assert await is_encrypted(server, **options(server, ca_secret="ca"))
    assert await is_encrypted(server, **options(server, "127.0.0.1", ca_secret="ca", mode="verify-ca"))
    assert await is_encrypted(server, **options(server, "127.0.0.1", mode="require"))


async def test_another_certificate_is_refused(server: Encrypted) -> None:
    other = trustme.CA().cert_pem.bytes().decode()
    for settings in (
        options(server),  # the public authorities
        options(server, ca_secret="ca") | {"secrets": {"ca": other}},
        options(server, mode="verify-ca", ca_secret="ca") | {"secrets": {"ca": other}},
        options(server, "127.0.0.1", ca_secret="ca"),  # of another name
    ):
        with pytest.raises((RetryableFailure, FatalFailure), match=r"(?i)certificate") as failure:
            await run("SELECT 1 AS n", **settings)
        assert "hunter" not in str(failure.value)


async def test_without_encryption_the_server_is_asked_in_the_clear(server: Encrypted) -> None:
    settings = options(server, mode="disable")
    if server.name == "mysql":
        assert not await is_encrypted(server, **settings)
    else:
        with pytest.raises((RetryableFailure, FatalFailure), match="no encryption"):
            await run("SELECT 1 AS n", **settings)


async def test_a_client_shows_its_certificate(server: Encrypted) -> None:
    certificates = server.certificates
    secrets = {"ca": certificates.authority, "certificate": certificates.client, "key": certificates.client_key}
    mutual = {"ca_secret": "ca", "certificate_secret": "certificate", "key_secret": "key"}
    address = url(server, user="mutual", password="none") if server.name == "postgresql" else url(server, user="mutual")
    address = address.replace(quote(server.password, safe=""), "")
    assert await is_encrypted(server, url=address, secrets=secrets, tls=mutual)
    with pytest.raises((FatalFailure, RetryableFailure)):
        await run("SELECT 1 AS n", url=address, secrets=secrets, tls={"ca_secret": "ca"})


async def test_a_secret_that_is_no_certificate_says_so(server: Encrypted) -> None:
    settings = options(server, ca_secret="ca") | {"secrets": {"ca": "hunter2 is no certificate"}}
    with pytest.raises((FatalFailure, RetryableFailure), match=r"PEM|certificate|PEM_read") as failure:
        await run("SELECT 1 AS n", **settings)
    assert "hunter2" not in str(failure.value)


async def test_cancelling_works_over_tls(server: Encrypted) -> None:
    async with executing(SLEEP[server.name], **options(server, ca_secret="ca")) as executor:
        task = asyncio.create_task(executor.execute({}, context()))
        await asyncio.to_thread(server.wait_until_sleeping, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(server.wait_until_sleeping, 0)


async def test_no_password_gets_out(
    server: Encrypted, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever goes wrong: results, failures and logs hold neither the password nor the URL."""
    caplog.set_level(logging.DEBUG)
    said: list[Any] = []
    good = options(server, ca_secret="ca")
    wrong = {**good, "url": url(server, password="hunter@2/wrong")}
    nowhere = {**good, "url": url(server).replace(f":{server.port}", ":1")}
    elsewhere = {**good, "url": url(server).replace("localhost", "nowhere.invalid")}
    statements = ["SELECT 1 AS n", "SELECT :v FROM nowhere", "SELEKT", SLEEP[server.name]]
    with structlog.testing.capture_logs() as logged:
        for settings in (good, wrong, nowhere, elsewhere):
            for statement in statements:
                work = run(statement, {"v": "x"}, **settings, statement_timeout="2s", exactly_once=True)
                said += await asyncio.gather(work, return_exceptions=True)
    chain = ["".join(traceback.format_exception(one)) for one in said if isinstance(one, Exception)]
    outputs = [json.dumps(one) for one in said if isinstance(one, dict)]
    captured = capfd.readouterr()
    everything = " ".join(map(str, [*chain, *outputs, logged, caplog.text, captured.out, captured.err]))
    assert len(chain) > 10
    assert outputs
    for secret in ("hunter", quote(server.password, safe=""), "prokos:"):
        assert secret not in everything
