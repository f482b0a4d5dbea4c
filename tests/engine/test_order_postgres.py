"""The order example with its PostgreSQL executor in place of the SQLite one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pgserver
import psycopg
import pytest

from engine.devsystem import DevSystem

EXAMPLES = Path(__file__).parents[2] / "examples"
ORDER = EXAMPLES / "order"


@pytest.mark.usefixtures("shop")
def test_orders_go_to_postgresql_with_another_executor(engine_address: str, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    shutil.copytree(ORDER, manifests, ignore=shutil.ignore_patterns("prokos.yaml", "*.json", "*.py", "*.md"))
    shutil.copy(EXAMPLES / "order-postgres" / "orders-db.yaml", manifests / "executors" / "orders-db.yaml")
    server = pgserver.get_server(tmp_path / "postgres", cleanup_mode="stop")
    try:
        url = server.get_uri()
        environment = {"ORDERS_DATABASE_URL": url, "PATH": os.environ["PATH"]}
        with DevSystem(tmp_path, [manifests], engine=engine_address, environment=environment) as dev:
            assert (
                dev.json("run", "order", "--vars", str(ORDER / "orders" / "small-order.json"))["variables"]["status"]
                == "placed"
            )
            assert url not in dev.output + dev.logs()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT order_id FROM orders").fetchall() == [("A-1001",)]
    finally:
        server.cleanup()
