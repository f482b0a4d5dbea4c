"""The `sql` executor on SQLite."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import pytest

from prokos.tde import BusinessError, FatalFailure, RetryableFailure
from unit import sql_bench
from unit.sql_bench import context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from prokos.tde.sql.executor import SqlExecutor

TABLE = "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, amount NUMERIC, note TEXT)"


@contextlib.asynccontextmanager
async def executing(workdir: Path, statement: str | None, **settings: Any) -> AsyncIterator[SqlExecutor]:
    settings.setdefault("setup", [TABLE])
    async with sql_bench.executing(statement, workdir=workdir, **settings) as executor:
        yield executor


async def run(
    workdir: Path, statement: str | None, data: dict[str, Any] | None = None, *, key: str = "1-1", **settings: Any
) -> dict[str, Any]:
    async with executing(workdir, statement, **settings) as executor:
        return await executor.execute(data or {}, context(key))


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


async def test_a_locked_database_is_tried_again(tmp_path: Path) -> None:
    await add(tmp_path, "A-1")
    other = sqlite3.connect(tmp_path / "orders.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RetryableFailure, match="locked"):
        await run(tmp_path, "DELETE FROM orders", setup=[], lock_timeout="100ms")
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
    async with executing(
        tmp_path, "INSERT INTO orders (id) VALUES (:id)", concurrency=8, lock_timeout="2m"
    ) as executor:
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
    dialects = "sqlalchemy.dialects.postgresql.psycopg, sqlalchemy.dialects.sqlite.pysqlite"
    program = f"import sys, prokos.tde.sql.executor, {dialects}"
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
