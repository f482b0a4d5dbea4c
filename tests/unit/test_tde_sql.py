"""The `sql` executor on SQLite, and its pure parts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import structlog
from pydantic import ValidationError

from prokos.resources.sql_settings import SqlSettings
from prokos.tde import BusinessError, Context, Environment, FatalFailure, RetryableFailure, Secrets
from prokos.tde import sql as sql_module
from prokos.tde.sql import SqlExecutor, engine_url, is_read
from prokos.tde.sql_values import format_interval, hide_values, to_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TABLE = "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, amount NUMERIC, note TEXT)"


def context() -> Context:
    return Context("1-1", timedelta(seconds=30), structlog.get_logger())


@contextlib.asynccontextmanager
async def executing(
    workdir: Path, statement: str, *, concurrency: int = 4, secrets: Secrets | None = None, **settings: Any
) -> AsyncIterator[SqlExecutor]:
    settings.setdefault("url", "sqlite:///orders.db")
    settings.setdefault("setup", [TABLE])
    environment = Environment("orders", workdir, concurrency, secrets or Secrets({}))
    executor = SqlExecutor(SqlSettings(statement=statement, **settings), environment)
    await executor.start()
    try:
        yield executor
    finally:
        await executor.close()


async def run(workdir: Path, statement: str, data: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    async with executing(workdir, statement, **settings) as executor:
        return await executor.execute(data or {}, context())


async def add(workdir: Path, *ids: str) -> None:
    async with executing(workdir, "INSERT INTO orders (id) VALUES (:id)") as executor:
        for order in ids:
            await executor.execute({"id": order}, context())


async def test_a_write_returns_the_number_of_rows(tmp_path: Path) -> None:
    statement = "INSERT INTO orders VALUES (:id, :amount, :note)"
    output = await run(tmp_path, statement, {"id": "A-1", "amount": 12.5, "note": None, "more": 1})
    assert output == {"rowCount": 1}


async def test_a_query_returns_rows(tmp_path: Path) -> None:
    await add(tmp_path, "A-1", "A-2")
    output = await run(tmp_path, "SELECT id, note FROM orders WHERE id >= :least ORDER BY id", {"least": "A-1"})
    assert output == {"rows": [{"id": "A-1", "note": None}, {"id": "A-2", "note": None}], "rowCount": 2}


async def test_a_query_without_rows_returns_none(tmp_path: Path) -> None:
    assert await run(tmp_path, "SELECT id FROM orders") == {"rows": [], "rowCount": 0}


async def test_a_write_may_return_rows(tmp_path: Path) -> None:
    output = await run(tmp_path, "INSERT INTO orders (id) VALUES (:id) RETURNING id", {"id": "A-1"})
    assert output == {"rows": [{"id": "A-1"}], "rowCount": 1}
    assert await run(tmp_path, "SELECT count(*) AS n FROM orders") == {"rows": [{"n": 1}], "rowCount": 1}


async def test_a_relative_path_is_relative_to_the_working_directory(tmp_path: Path) -> None:
    await add(tmp_path, "A-1")
    assert (tmp_path / "orders.db").stat().st_size > 0


@pytest.mark.parametrize(
    "value", ["A-1'; DROP TABLE orders; --", "' OR '1'='1", "%", ":id", "\\", "$1", "%(id)s", "\x00", "ü🎈"]
)
async def test_a_value_is_never_part_of_the_statement(tmp_path: Path, value: str) -> None:
    await add(tmp_path, "A-1", value)
    output = await run(tmp_path, "SELECT id FROM orders WHERE id = :id", {"id": value})
    assert output["rows"] == [{"id": value}]


async def test_lists_and_objects_travel_as_json(tmp_path: Path) -> None:
    data = {"id": "A-1", "note": {"lines": [1, "ü"]}}
    await run(tmp_path, "INSERT INTO orders (id, note) VALUES (:id, :note)", data)
    output = await run(tmp_path, "SELECT note FROM orders")
    assert json.loads(output["rows"][0]["note"]) == data["note"]
    chosen = await run(
        tmp_path, "SELECT id FROM orders WHERE id IN (SELECT value FROM json_each(:ids))", {"ids": ["A-1"]}
    )
    assert chosen["rowCount"] == 1


async def test_names_the_parameters_that_the_input_lacks(tmp_path: Path) -> None:
    with pytest.raises(FatalFailure, match=r"spec\.sql\.statement needs orderId, site, which the input does not have"):
        await run(tmp_path, "SELECT 1 FROM orders WHERE id = :orderId AND note = :site AND id = :id", {"id": 1})


async def test_colons_that_are_no_parameters_are_left_alone(tmp_path: Path) -> None:
    statement = "SELECT '12:30' AS a, CAST(:n AS TEXT) || '%' AS b"
    assert (await run(tmp_path, statement, {"n": 1}))["rows"] == [{"a": "12:30", "b": "1%"}]


async def test_too_many_rows_undo_the_transaction(tmp_path: Path) -> None:
    await add(tmp_path, "A-1", "A-2", "A-3")
    assert (await run(tmp_path, "SELECT id FROM orders", max_rows=3))["rowCount"] == 3
    with pytest.raises(FatalFailure, match=r"more rows than spec\.sql\.maxRows \(2\)"):
        await run(tmp_path, "SELECT id FROM orders", max_rows=2)
    with pytest.raises(FatalFailure, match=r"maxRows"):
        await run(tmp_path, "DELETE FROM orders RETURNING id", max_rows=2)
    assert (await run(tmp_path, "SELECT count(*) AS n FROM orders"))["rows"] == [{"n": 3}]


async def test_an_endless_query_is_stopped_at_the_limit(tmp_path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    with pytest.raises(FatalFailure, match="maxRows"):
        await run(tmp_path, endless)


async def test_refuses_columns_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(FatalFailure, match="several columns named 'id'"):
        await run(tmp_path, "SELECT 1 AS id, 2 AS id")


async def test_a_constraint_is_fatal_by_default(tmp_path: Path) -> None:
    await add(tmp_path, "A-1")
    with pytest.raises(FatalFailure, match=r"UNIQUE constraint failed: orders\.id"):
        await add(tmp_path, "A-1")


async def test_a_constraint_can_be_a_business_error(tmp_path: Path) -> None:
    await add(tmp_path, "A-1")
    with pytest.raises(BusinessError) as error:
        await run(
            tmp_path,
            "INSERT INTO orders (id) VALUES (:id)",
            {"id": "A-1"},
            errors=[{"contains": "CHECK", "code": "NO"}, {"contains": "UNIQUE constraint", "code": "DUPLICATE"}],
        )
    assert error.value.code == "DUPLICATE"


@pytest.mark.parametrize("statement", ["SELEKT 1", "SELECT nothing FROM orders", "SELECT * FROM nowhere"])
async def test_a_wrong_statement_is_fatal(tmp_path: Path, statement: str) -> None:
    with pytest.raises(FatalFailure):
        await run(tmp_path, statement)


@pytest.mark.parametrize("value", [2**70, "\ud800"])
async def test_a_value_the_database_cannot_take_is_fatal(tmp_path: Path, value: Any) -> None:
    with pytest.raises(FatalFailure):
        await run(tmp_path, "SELECT :value AS v", {"value": value})


async def test_a_locked_database_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_module, "BUSY_SECONDS", 0.1)
    await add(tmp_path, "A-1")
    other = sqlite3.connect(tmp_path / "orders.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RetryableFailure, match="locked"):
        await run(tmp_path, "DELETE FROM orders", setup=[])
    other.rollback()
    other.close()
    assert await run(tmp_path, "DELETE FROM orders") == {"rowCount": 1}


async def test_readers_work_beside_a_writer(tmp_path: Path) -> None:
    await add(tmp_path, "A-1")
    other = sqlite3.connect(tmp_path / "orders.db")
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM orders")
    assert (await run(tmp_path, "SELECT id FROM orders", setup=[]))["rowCount"] == 1
    other.close()


async def test_workers_that_start_at_once_set_up_once(tmp_path: Path) -> None:
    setup = [
        TABLE,
        "CREATE TABLE IF NOT EXISTS lines (n)",
        "INSERT INTO lines SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM lines)",
    ]
    counting = "SELECT count(*) AS n FROM lines"
    outputs = await asyncio.gather(*(run(tmp_path, counting, setup=setup) for _ in range(8)))
    assert outputs == [{"rows": [{"n": 1}], "rowCount": 1}] * 8


async def test_a_wrong_setup_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(FatalFailure, match=r"spec\.sql\.setup: .*syntax error"):
        await run(tmp_path, "SELECT 1", setup=["CREATE TABEL x"])


async def test_a_setup_may_hold_percent_signs_and_colons(tmp_path: Path) -> None:
    setup = ["CREATE TABLE t AS SELECT '100% :of it' AS a"]
    assert (await run(tmp_path, "SELECT a FROM t", setup=setup))["rows"] == [{"a": "100% :of it"}]


async def test_a_database_that_is_not_there_yet_is_set_up_later(tmp_path: Path) -> None:
    async with executing(tmp_path, "SELECT id FROM orders", url="sqlite:///later/orders.db") as executor:
        with pytest.raises(RetryableFailure, match="unable to open"):
            await executor.execute({}, context())
        (tmp_path / "later").mkdir()
        assert await executor.execute({}, context()) == {"rows": [], "rowCount": 0}


async def test_writers_at_once_take_turns(tmp_path: Path) -> None:
    async with executing(tmp_path, "INSERT INTO orders (id) VALUES (:id)", concurrency=8) as executor:
        outputs = await asyncio.gather(*(executor.execute({"id": str(n)}, context()) for n in range(100)))
    assert outputs == [{"rowCount": 1}] * 100


async def test_a_cancelled_statement_stops_and_leaves_the_database_free(tmp_path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO orders (id) SELECT i FROM n"
    async with executing(tmp_path, endless, concurrency=1) as executor:
        task = asyncio.create_task(executor.execute({}, context()))
        await asyncio.to_thread(wait_until_locked, tmp_path / "orders.db")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await run(tmp_path, "SELECT count(*) AS n FROM orders"))["rows"] == [{"n": 0}]
    await add(tmp_path, "A-1")


def test_a_worker_does_without_the_orm() -> None:
    program = "import sys, prokos.tde.sql, sqlalchemy.dialects.postgresql.psycopg, sqlalchemy.dialects.sqlite.pysqlite"
    listing = "print(*({'sqlalchemy.orm', 'sqlalchemy.ext.asyncio'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", f"{program}\n{listing}"], check=True, capture_output=True, text=True)
    assert loaded.stdout.strip() == ""


def wait_until_locked(path: Path, seconds: float = 20) -> None:
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return
        sleep(0.01)
    raise AssertionError("the statement never began to write")


# URLs


@pytest.mark.parametrize("url", ["mysql://db/orders", "sqlite", "oracle://db"])
def test_refuses_other_databases_in_the_manifest(url: str) -> None:
    with pytest.raises(ValidationError, match="sqlite:// or postgresql://"):
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


# Values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (Decimal("12.50"), 12.5),
        (Decimal("12.00"), 12),
        (Decimal("0.1"), 0.1),
        (Decimal("1E+3"), 1000),
        (Decimal("0.12345678901234567890"), "0.12345678901234567890"),
        (Decimal("12345678901234567890.5"), "12345678901234567890.5"),
        (Decimal("1E+100"), 1e100),
        (Decimal("1E+1000"), "1E+1000"),
        (Decimal("NaN"), "NaN"),
        (Decimal("Infinity"), "Infinity"),
        (datetime(2026, 3, 1, 12, 30, tzinfo=UTC), "2026-03-01T12:30:00+00:00"),
        (datetime(2026, 3, 1, 12, 30), "2026-03-01T12:30:00"),  # without a zone
        (date(2026, 3, 1), "2026-03-01"),
        (time(12, 30), "12:30:00"),
        (timedelta(days=1, hours=2, microseconds=500_000), "P1DT7200.5S"),
        (b"\x00\xff", "AP8="),
        (memoryview(b"\x00\xff"), "AP8="),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        ([Decimal("0.5"), None], [0.5, None]),
        ({"a": date(2026, 3, 1)}, {"a": "2026-03-01"}),
    ],
)
def test_turns_values_into_json_without_loss(value: Any, expected: Any) -> None:
    converted = to_json(value)
    assert (converted, type(converted)) == (expected, type(expected))
    json.dumps(converted, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(0), "PT0S"),
        (timedelta(days=3), "P3D"),
        (timedelta(seconds=90), "PT90S"),
        (timedelta(microseconds=1), "PT0.000001S"),
        (timedelta(seconds=10), "PT10S"),
        (-timedelta(days=1, seconds=1), "-P1DT1S"),
    ],
)
def test_writes_intervals_as_iso_8601(value: timedelta, text: str) -> None:
    assert format_interval(value) == text


def test_hides_values_that_a_database_quotes() -> None:
    message = "invalid input syntax for type integer: \"4111-1111\": near 'x', 4111-1111 in the index"
    assert hide_values(message, {"card": "4111-1111", "x": "x", "none": None, "empty": ""}) == (
        "invalid input syntax for type integer: <card>: near <x>, <card> in the index"
    )


@pytest.mark.parametrize(
    ("statement", "reads"),
    [
        ("SELECT 1", True),
        ("  -- why\n /* and */ select 1", True),
        ("WITH a AS (SELECT 1) SELECT * FROM a", True),
        ("VALUES (1)", True),
        ("SELECT 1 FOR UPDATE", False),
        ("SELECT * INTO t FROM u", False),
        ("WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a", False),
        ("INSERT INTO t SELECT 1", False),
        ("EXPLAIN SELECT 1", False),
        ("selection", False),
    ],
)
def test_knows_statements_that_only_read(statement: str, reads: bool) -> None:
    assert is_read(statement) is reads
