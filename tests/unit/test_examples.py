"""The examples and the executors for processes of others: valid, and the executors do what they say."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from prokos.processes import check_manifests
from prokos.resources import ProkOS, ProkOSSpec, TaskExecutor

ROOT = Path(__file__).parents[2]
ORDER = ROOT / "examples" / "order"
ORDERS = sorted((ORDER / "orders").glob("*.json"))
FOREIGN = ROOT / "tests" / "engine" / "foreign"
PROCESSES = ROOT.parent / "shared" / "data" / "processes"


def executor(name: str) -> TaskExecutor:
    (found,) = check_manifests([ORDER / "executors" / f"{name}.yaml"]).loaded.only(TaskExecutor)
    return found


# --- manifests -----------------------------------------------------------------------------------------------


def test_order_example_has_no_errors_and_no_warnings() -> None:
    checked = check_manifests([ORDER])
    assert list(checked.problems) == []
    processes = [process for definition in checked.definitions for process in definition.bpmn.processes]
    assert [process.process_id for process in processes] == ["order"]
    assert {found.metadata.name for found in checked.loaded.only(TaskExecutor)} == {
        "orders-db",
        "payments",
        "pricing",
        "release-stock",
        "reserve-stock",
    }


def test_order_example_works_with_the_postgres_executor_in_place_of_the_sqlite_one() -> None:
    others = [file for file in (ORDER / "executors").glob("*.yaml") if file.name != "orders-db.yaml"]
    checked = check_manifests([ORDER / "order.bpmn", ORDER / "prokos.yaml", *others, ROOT / "examples/order-postgres"])
    assert list(checked.problems) == []
    (saving,) = [found for found in checked.loaded.only(TaskExecutor) if found.metadata.name == "orders-db"]
    assert saving.spec.sql is not None
    assert saving.spec.sql.url_secret == "orders-database"
    assert [secret.env for secret in saving.spec.secrets] == ["ORDERS_DATABASE_URL"]


def test_both_order_databases_are_asked_the_same() -> None:
    sqlite = executor("orders-db").spec
    (postgres,) = check_manifests([ROOT / "examples/order-postgres"]).loaded.only(TaskExecutor)
    assert sqlite.accepts == postgres.spec.accepts
    assert sqlite.sql is not None
    assert postgres.spec.sql is not None
    names = [re.findall(r":(\w+)", settings.statement) for settings in (sqlite.sql, postgres.spec.sql)]
    assert names[0] == names[1]


def test_the_container_example_has_no_errors_and_no_warnings() -> None:
    checked = check_manifests([ROOT / "examples" / "container"])
    assert list(checked.problems) == []
    (found,) = checked.loaded.only(TaskExecutor)
    assert found.spec.description.endswith(".")


def test_settings_of_the_system_are_the_defaults() -> None:
    (system,) = check_manifests([ORDER / "prokos.yaml"]).loaded.only(ProkOS)
    written = system.spec.model_dump(exclude_unset=True)
    assert {"engine", "pdo", "router"} <= written.keys()
    default = ProkOSSpec()
    assert (system.spec.pdo, system.spec.router) == (default.pdo, default.router)


def test_every_executor_says_what_it_does() -> None:
    for found in check_manifests([ORDER, FOREIGN]).loaded.only(TaskExecutor):
        assert found.spec.description.endswith("."), found.metadata.name


@pytest.mark.parametrize("manifest", sorted(FOREIGN.glob("*.yaml")), ids=lambda file: file.stem)
def test_executors_serve_every_task_of_a_process_of_others(manifest: Path) -> None:
    process = PROCESSES / f"{manifest.stem}.bpmn"
    if not process.is_file():
        pytest.skip(f"{process.name} is not beside the checkout, in ../shared/data/processes")
    checked = check_manifests([manifest, process])
    assert list(checked.problems) == []
    assert len(checked.definitions) == 1


# --- what the executors of the order do ----------------------------------------------------------------------


@pytest.mark.parametrize("file", ORDERS, ids=lambda file: file.stem)
def test_orders_fit_the_pricing(file: Path) -> None:
    schema = executor("pricing").spec.input_schema
    assert schema is not None
    jsonschema_rs.validator_for(schema).validate(json.loads(file.read_text()))


@pytest.mark.parametrize(
    ("items", "total"),
    [
        ([(1, 2.5)], 2.5),
        ([(3, 0.1), (1, 0.2)], 0.5),
        ([(1, 1.005)], 1.01),
        ([(3, 4.95), (1, 89.9)], 104.75),
    ],
)
def test_pricing_adds_up_in_decimals(items: list[tuple[int, float]], total: float) -> None:
    script = executor("pricing").spec.script
    assert script is not None
    assert script.source is not None
    names: dict[str, Any] = {}
    exec(compile(script.source, "pricing", "exec"), names)
    order = {"items": [{"sku": "x", "quantity": quantity, "unitPrice": price} for quantity, price in items]}
    assert names["main"](order) == {"total": total}


def test_an_order_is_saved_once_however_often_it_is_tried() -> None:
    sql = executor("orders-db").spec.sql
    assert sql is not None
    order = {"orderId": "A-1", "customer": "Ada", "items": "[]", "total": 2.5, "paymentId": "P-1"}
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for _ in range(2):
            for statement in sql.setup:
                connection.execute(statement)
        written = [connection.execute(sql.statement, order).rowcount for _ in range(2)]
        assert written == [1, 0]
        assert connection.execute("SELECT order_id, total FROM orders").fetchall() == [("A-1", 2.5)]
