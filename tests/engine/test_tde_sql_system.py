"""The `sql` executor in a whole system: databases are killed in the middle of tasks, and workers stay small."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from engine.devsystem import DevSystem
from engine.samples import one_task, write
from engine.sql_servers import DebianPostgreSql, MariaDb, PostgreSql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.sql_server import Server

WORKER_LIMITS = {"sqlite": 90e6, "mariadb-tls": 100e6, "pg-plain": 102e6, "pg-tls": 108e6}
"""Bytes a worker may have resident: what was measured (docs/executors/sql.md) and 5 % more."""

SLEEP = {
    "postgresql": "SELECT 9007199254740993 AS big, 1 AS n FROM pg_sleep(:seconds)",
    "mysql": "SELECT 9007199254740993 AS big, SLEEP(:seconds) AS n",
}


@dataclass
class System:
    """A `prokos dev` with one executor and one process for each server."""

    dev: DevSystem
    servers: dict[str, Server]


def executor(name: str, settings: dict[str, Any], *secrets: str) -> dict[str, Any]:
    declared = [{"name": secret, "env": secret.replace("-", "_").upper()} for secret in secrets]
    spec = {
        "type": "sql",
        "accepts": [{"jobType": name}],
        "timeout": "30s",
        "backoff": {"initial": "500ms", "multiplier": 1},
        "secrets": declared,
        "sql": settings,
    }
    return {"apiVersion": "prokos.io/v1alpha1", "kind": "TaskExecutor", "metadata": {"name": name}, "spec": spec}


def transaction(database: str) -> dict[str, Any]:
    statements = [
        {"name": "write", "statement": "UPDATE counters SET n = n + 1", "expect": {"rows": 1}},
        {"name": "sleep", "statement": SLEEP[database]},
    ]
    return {"exactlyOnce": True, "setup": ["CREATE TABLE IF NOT EXISTS counters (n int)"], "statements": statements}


@pytest.fixture(scope="module")
def system(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    directory = tmp_path_factory.mktemp("sql")
    with PostgreSql.running() as plain, DebianPostgreSql.running() as encrypted, MariaDb.running() as mariadb:
        secrets = {"PG_PLAIN_URL": plain.url}
        resources = [executor("pg-plain", {"urlSecret": "pg-plain-url", **transaction("postgresql")}, "pg-plain-url")]
        for name, server, database in (("pg-tls", encrypted, "postgres"), ("mariadb-tls", mariadb, "orders")):
            variable = name.replace("-", "_").upper()
            password = quote(server.password, safe="")
            secrets[f"{variable}_URL"] = f"{server.name}://prokos:{password}@localhost:{server.port}/{database}"
            secrets[f"{variable}_CA"] = server.certificates.authority
            settings = {"urlSecret": f"{name}-url", "tls": {"caSecret": f"{name}-ca"}, **transaction(server.name)}
            resources.append(executor(name, settings, f"{name}-url", f"{name}-ca"))
        resources.append(executor("sqlite", {"url": "sqlite:///some.db", "statement": "SELECT :seconds AS n"}))
        processes = {name: one_task(name, name, retries=100) for name in (one["metadata"]["name"] for one in resources)}
        manifests = write(directory / "manifests", processes=processes, resources=resources)
        with DevSystem(directory, [manifests], engine=engine_address, environment=secrets) as dev:
            servers: dict[str, Server] = {"pg-plain": plain, "pg-tls": encrypted, "mariadb-tls": mariadb}
            for server in servers.values():
                server.query("INSERT INTO counters VALUES (0)")
            yield System(dev, servers)
        said = dev.output + dev.logs()
        for server in (encrypted, mariadb):
            assert server.password not in said
            assert quote(server.password, safe="") not in said


@pytest.mark.parametrize("name", ["pg-plain", "pg-tls", "mariadb-tls"])
def test_a_task_whose_database_is_killed_is_done_once(system: System, name: str) -> None:
    server = system.servers[name]
    ended: dict[str, Any] = {}
    before = server.query("SELECT n FROM counters")[0][0]
    running = threading.Thread(target=lambda: ended.update(system.dev.run_process(name, {"seconds": 10})))
    running.start()
    server.wait_until_sleeping(1)
    server.kill()
    server.start()
    running.join(120)
    assert ended["results"]["write"] == {"rowCount": 1}
    # An integer that no double holds has gone through the engine unharmed.
    assert ended["results"]["sleep"]["rows"][0]["big"] == 9007199254740993
    assert server.query("SELECT n FROM counters") == [(before + 1,)]


def test_workers_stay_small(system: System) -> None:
    """After some tasks on every database, TLS included."""
    for name in (*system.servers, "sqlite"):
        for _ in range(3):
            system.dev.run_process(name, {"seconds": 0})
    found = {}
    for process in system.dev.family():
        if "prokos.tde" in process.cmdline():
            file = process.environ()["PROKOS_EXECUTOR_FILE"]
            [name] = [name for name in WORKER_LIMITS if f"/{name}" in file]
            found[name] = process.memory_info().rss
    assert found.keys() == WORKER_LIMITS.keys()
    assert {name: f"{rss / 1e6:.1f} MB" for name, rss in found.items() if rss > WORKER_LIMITS[name]} == {}
