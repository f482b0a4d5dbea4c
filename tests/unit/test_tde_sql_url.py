"""Where the `sql` executor connects to, and how it is encrypted."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from prokos.resources.sql_settings import SqlSettings, SqlTls
from prokos.tde import Environment, FatalFailure, Secrets
from prokos.tde.sql.executor import SqlExecutor
from prokos.tde.sql.tls import Tls
from prokos.tde.sql.url import engine_url, is_local


@pytest.mark.parametrize("url", ["mssql://db/orders", "sqlite", "oracle://db"])
def test_refuses_other_databases_in_the_manifest(url: str) -> None:
    with pytest.raises(ValidationError, match="url must start with sqlite://, postgresql://"):
        SqlSettings(url=url, statement="SELECT 1")


@pytest.mark.parametrize("url", ["postgresql://me:secret@db/orders", "postgresql://db/orders?user=me&password=secret"])
def test_refuses_a_password_in_the_manifest(url: str) -> None:
    with pytest.raises(ValidationError, match="urlSecret"):
        SqlSettings(url=url, statement="SELECT 1")


@pytest.mark.parametrize("url", ["postgresql://me@db:5432/orders", "postgresql+psycopg://db/orders?sslmode=require"])
def test_accepts_postgresql_urls_and_chooses_psycopg(url: str) -> None:
    SqlSettings(url=url, statement="SELECT 1")
    assert engine_url(url, Path()).drivername == "postgresql+psycopg"


def test_refuses_a_database_in_memory() -> None:
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(ValueError, match="in memory"):
            engine_url(url, Path())


def test_an_unreadable_url_is_not_shown() -> None:
    environment = Environment("x", Path(), 1, Secrets({"db": "me:secret@db/orders"}))
    with pytest.raises(ValueError, match="is not a URL") as refused:
        SqlExecutor(SqlSettings(url_secret="db", statement="SELECT 1"), environment)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["mysql://me@db/orders", "mariadb://db/orders", "mariadb+pymysql://db/orders"])
def test_accepts_mariadb_urls_and_talks_utf_8(url: str) -> None:
    SqlSettings(url=url, statement="SELECT 1")
    found = engine_url(url, Path())
    assert (found.drivername, found.query["charset"]) == ("mysql+pymysql", "utf8mb4")


@pytest.mark.parametrize(
    "option",
    ["charset=gbk", "local_infile=1", "client_flag=65536", "init_command=DROP", "read_default_file=/etc/my.cnf"],
)
def test_refuses_options_that_open_doors(option: str) -> None:
    with pytest.raises(ValueError, match=option.partition("=")[0]):
        engine_url(f"mariadb://db/orders?{option}", Path())


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("postgresql:///orders", True),
        ("postgresql:///orders?host=/run/postgresql", True),
        ("postgresql://localhost/orders", True),
        ("postgresql://127.0.0.53/orders", True),
        ("postgresql://[::1]:5432/orders", True),
        ("postgresql://localhost.example.com/orders", False),
        ("postgresql://10.0.0.1/orders", False),
        ("postgresql://[fe80::1]/orders", False),
        ("postgresql:///orders?host=localhost:1,db:2", False),
        ("postgresql://localhost/orders?hostaddr=10.0.0.1", False),
        ("mariadb://localhost/orders", True),
        ("mariadb:///orders?unix_socket=/run/mysqld/mysqld.sock", True),
        ("mariadb://db/orders", False),
    ],
)
def test_knows_servers_of_this_machine(url: str, local: bool) -> None:
    assert is_local(make_url(url)) is local


def test_a_server_elsewhere_must_show_a_certificate_of_its_name() -> None:
    elsewhere = Tls(make_url("postgresql://db/orders"), None, Secrets({}))
    assert elsewhere.libpq()["sslmode"] == "verify-full"
    assert Path(elsewhere.libpq()["sslrootcert"]).is_absolute()
    context = Tls(make_url("mariadb://db/orders"), None, Secrets({})).context
    assert context is not None
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    here = Tls(make_url("mariadb://localhost/orders"), None, Secrets({}))
    assert here.libpq() == {"sslmode": "disable"}
    assert here.context is None


def test_a_url_with_sslmode_decides_for_itself() -> None:
    url = make_url("postgresql://db/orders?sslmode=require")
    assert Tls(url, None, Secrets({})).libpq() == {}
    with pytest.raises(ValueError, match="keep one of them"):
        Tls(url, SqlTls(), Secrets({}))


def test_keys_are_readable_by_their_owner_only_and_are_removed() -> None:
    settings = SqlTls(ca_secret="ca", certificate_secret="certificate", key_secret="key")
    secrets = Secrets({"ca": "authority", "certificate": "mine", "key": "private"})
    tls = Tls(make_url("postgresql://db/orders"), settings, secrets)
    arguments = tls.libpq()
    key = Path(arguments["sslkey"])
    assert key.read_text() == "private\n"
    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    tls.close()
    assert not key.parent.exists()
    with pytest.raises(FatalFailure, match="PEM"):
        _ = Tls(make_url("mariadb://db/orders"), settings, secrets).context
