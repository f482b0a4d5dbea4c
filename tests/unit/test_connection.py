from __future__ import annotations

import pytest

from prokos.engine import AccessDeniedError, Connection
from prokos.engine.connection import Basic, OAuth, from_environment, from_resource, read_secret
from prokos.resources.engine_settings import ExternalEngine, SecretValue

OAUTH = OAuth("https://login.example/token", "client", "s3cr3t", audience="zeebe", scope="all")
ADDRESS = "engine.example:26500"


@pytest.mark.parametrize(
    "connection",
    [
        Connection(ADDRESS),
        Connection(ADDRESS, tls=True),
        Connection(ADDRESS, tls=True, ca_file="/etc/ca.pem"),
        Connection(ADDRESS, tls=True, oauth=OAUTH),
        Connection(ADDRESS, tls=True, oauth=OAuth("https://login.example/token", "client", "s3cr3t")),
        Connection(ADDRESS, tls=True, ca_file="/etc/ca.pem", basic=Basic("demo", "pa55")),
    ],
    ids=str,
)
def test_the_environment_carries_a_connection_whole(connection):
    assert from_environment(connection.to_environment()) == connection


def test_there_is_no_connection_without_an_address():
    assert from_environment({"PROKOS_ENGINE_TLS": "true"}) is None


@pytest.mark.parametrize(("text", "tls"), [("true", True), ("1", True), ("YES", True), ("false", False), ("", False)])
def test_reads_whether_tls_is_wanted(text, tls):
    connection = from_environment({"PROKOS_ENGINE_ADDRESS": ADDRESS, "PROKOS_ENGINE_TLS": text})
    assert connection is not None
    assert connection.tls is tls


@pytest.mark.parametrize("text", [repr, str, "{0.oauth!r} {0.basic!r}".format])
def test_no_secret_is_in_the_text_of_a_connection(text):
    for connection in (
        Connection(ADDRESS, tls=True, oauth=OAUTH),
        Connection(ADDRESS, tls=True, basic=Basic("u", "pa55")),
    ):
        assert "s3cr3t" not in text(connection)
        assert "pa55" not in text(connection)


@pytest.mark.parametrize("credentials", [{"oauth": OAUTH}, {"basic": Basic("demo", "pa55")}])
def test_refuses_credentials_without_tls(credentials):
    with pytest.raises(AccessDeniedError, match="in the clear"):
        Connection(ADDRESS, **credentials)


def test_refuses_credentials_without_tls_in_the_environment():
    environment = {"PROKOS_ENGINE_ADDRESS": ADDRESS, "PROKOS_ENGINE_USERNAME": "demo", "PROKOS_ENGINE_PASSWORD": "pa55"}
    with pytest.raises(AccessDeniedError, match="PROKOS_ENGINE_TLS"):
        from_environment(environment)


def test_a_resource_describes_a_connection_and_refers_to_its_secrets():
    engine = ExternalEngine.model_validate(
        {
            "address": ADDRESS,
            "tls": {"enabled": True, "caFile": "/etc/ca.pem"},
            "oauth": {
                "tokenUrl": OAUTH.token_url,
                "clientId": "client",
                "clientSecret": {"env": "SECRET"},
                "audience": "zeebe",
                "scope": "all",
            },
        }
    )
    connection = from_resource(engine, lambda value: read_secret(value, {"SECRET": "s3cr3t"}))
    assert connection == Connection(ADDRESS, True, "/etc/ca.pem", oauth=OAUTH)


def test_a_resource_may_describe_a_user_and_a_password(tmp_path):
    (tmp_path / "password").write_text("pa55\n")
    engine = ExternalEngine.model_validate(
        {
            "address": ADDRESS,
            "tls": {"enabled": True},
            "basic": {"username": "demo", "password": {"file": str(tmp_path / "password")}},
        }
    )
    assert from_resource(engine).basic == Basic("demo", "pa55")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"env": "SECRET"}, "environment variable SECRET is not set"),
        ({"file": "/nowhere/secret"}, "/nowhere/secret: No such file"),
        ({"secretKeyRef": {"name": "engine", "key": "password"}}, "only be resolved in a cluster"),
    ],
)
def test_says_which_secret_is_missing(value, message):
    with pytest.raises(AccessDeniedError, match=message):
        read_secret(SecretValue.model_validate(value), {})
