"""The order example as its reader runs it: accepted, declined, and with payments that fail at first."""

from __future__ import annotations

import json
import shutil
import sqlite3
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.devsystem import DevSystem

ORDER = Path(__file__).parents[2] / "examples" / "order"
SHOP = "http://127.0.0.1:18181"


def ask(path: str) -> Any:
    with urllib.request.urlopen(SHOP + path, timeout=5) as response:
        return json.loads(response.read())


@pytest.fixture(scope="module")
def dev(engine_address: str, shop: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSystem]:
    directory = tmp_path_factory.mktemp("order")
    # A system that says which engine to use takes the place of the example's own.
    manifests = directory / "manifests"
    shutil.copytree(ORDER, manifests, ignore=shutil.ignore_patterns("prokos.yaml", "*.json", "*.py", "*.md"))
    with DevSystem(directory, [manifests], engine=engine_address) as system:
        yield system


def order(dev: DevSystem, name: str) -> dict[str, Any]:
    result: dict[str, Any] = dev.json("run", "order", "--vars", str(ORDER / "orders" / name))
    return dict(result["variables"])


def test_a_small_order_is_priced_paid_and_saved(dev: DevSystem) -> None:
    variables = order(dev, "small-order.json")
    assert (variables["status"], variables["total"]) == ("placed", 104.75)
    # The service refuses each first call, so the payment is one that was tried again.
    assert [payment["amount"] for payment in ask("/payments")] == [104.75]
    with sqlite3.connect(dev.state / "work" / "orders-db" / "orders.db") as database:
        assert database.execute("SELECT order_id, total FROM orders").fetchall() == [("A-1001", 104.75)]
    assert [reservation["orderId"] for reservation in ask("/reservations")] == ["A-1001"]


def test_a_declined_order_releases_its_goods(dev: DevSystem) -> None:
    variables = order(dev, "large-order.json")
    assert variables["status"] == "rejected"
    assert variables["declineReason"]
    order_id = variables["orderId"]
    assert order_id not in {reservation["orderId"] for reservation in ask("/reservations")}
    dev.wait_for_task(element="ReleaseGoods", state="completed")
    assert [task["element"] for task in dev.tasks(element="ReleaseGoods", state="completed")] == ["ReleaseGoods"]


def test_the_same_order_is_saved_once(dev: DevSystem) -> None:
    order(dev, "small-order.json")
    with sqlite3.connect(dev.state / "work" / "orders-db" / "orders.db") as database:
        assert database.execute("SELECT count(*) FROM orders WHERE order_id = 'A-1001'").fetchone() == (1,)
