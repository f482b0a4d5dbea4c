"""Transactions of the `sql` executor on SQLite: several statements, batches, read-only, exactly once."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from prokos.tde import BusinessError, FatalFailure
from unit import sql_bench
from unit.sql_bench import context

if TYPE_CHECKING:
    from pathlib import Path

TABLE = "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, amount NUMERIC, note TEXT)"


async def run(
    workdir: Path, statement: str | None, data: dict[str, Any] | None = None, **settings: Any
) -> dict[str, Any]:
    return await sql_bench.run(statement, data, workdir=workdir, **{"setup": [TABLE], **settings})


async def add(workdir: Path, order: str) -> None:
    await run(workdir, "INSERT INTO orders (id) VALUES (:id)", {"id": order})


ORDER: list[dict[str, Any]] = [
    {"name": "order", "statement": "INSERT INTO orders (id, amount) VALUES (:id, :amount)"},
    {"name": "parts", "statement": "INSERT INTO orders (id, note) VALUES (:part, :id)", "batch": "parts"},
    {"name": "count", "statement": "SELECT count(*) AS n FROM orders", "expect": {"rows": 1}},
]


async def test_several_statements_are_one_transaction(tmp_path: Path) -> None:
    data = {"id": "A", "amount": 1, "parts": [{"part": "A1"}, {"part": "A2"}]}
    output = await run(tmp_path, None, data, statements=ORDER)
    counted = {"rows": [{"n": 3}], "rowCount": 1}
    assert output == {"results": {"order": {"rowCount": 1}, "parts": {"rowCount": 2}, "count": counted}}
    with pytest.raises(FatalFailure, match="UNIQUE constraint failed"):
        await run(tmp_path, None, {"id": "B", "amount": 1, "parts": [{"part": "A1"}]}, statements=ORDER)
    assert (await run(tmp_path, "SELECT id FROM orders"))["rowCount"] == 3


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (None, r"statements 'parts' needs the list 'parts', which the input does not have"),
        ({}, "input 'parts' is not a list"),
        ([1], "element 0 of input 'parts' is not an object"),
        ([{}], "needs part, which the input does not have"),
    ],
)
async def test_says_what_is_wrong_with_a_batch(tmp_path: Path, parts: Any, message: str) -> None:
    data = {"id": "A", "amount": 1} | ({} if parts is None else {"parts": parts})
    with pytest.raises(FatalFailure, match=message):
        await run(tmp_path, None, data, statements=ORDER)


@pytest.mark.parametrize(
    ("expect", "code"),
    [({"rows": 1}, None), ({"at_least": 1}, None), ({"rows": 1, "code": "GONE"}, "GONE")],
)
async def test_another_number_of_rows_than_expected_undoes_all(tmp_path: Path, expect: Any, code: str | None) -> None:
    await add(tmp_path, "A")
    statements = [
        {"name": "drop", "statement": "DELETE FROM orders"},
        {"name": "again", "statement": "DELETE FROM orders"},
    ]
    statements[1]["expect"] = expect
    with pytest.raises(BusinessError if code else FatalFailure, match=r"'again': 0 rows, .*1 expected") as failure:
        await run(tmp_path, None, statements=statements)
    assert getattr(failure.value, "code", None) == code
    assert (await run(tmp_path, "SELECT id FROM orders"))["rowCount"] == 1


@pytest.mark.parametrize("write", ["DELETE FROM orders", "CREATE TABLE other (n)", "PRAGMA user_version = 7", "VACUUM"])
async def test_sqlite_itself_refuses_writes_of_a_read_only_executor(tmp_path: Path, write: str) -> None:
    await add(tmp_path, "A")
    statements = [{"name": "open", "statement": "PRAGMA query_only = OFF"}, {"name": "write", "statement": write}]
    with pytest.raises(FatalFailure, match=r"readonly|VACUUM"):
        await run(tmp_path, None, statements=statements, read_only=True, setup=[])
    output = await run(tmp_path, "SELECT id FROM orders", read_only=True, setup=[])
    assert output["rows"] == [{"id": "A"}]


async def test_a_repetition_gets_the_first_result(tmp_path: Path) -> None:
    insert = "INSERT INTO orders (id, note) VALUES (:id, random()) RETURNING note"
    first = await run(tmp_path, insert, {"id": "A", "other": 1}, exactly_once=True)
    assert await run(tmp_path, insert, {"id": "A", "other": 2}, exactly_once=True) == first
    with pytest.raises(FatalFailure, match="UNIQUE"):
        await run(tmp_path, insert, {"id": "A"}, key="2", exactly_once=True)
    with pytest.raises(FatalFailure, match="with other parameters"):
        await run(tmp_path, insert, {"id": "B"}, exactly_once=True)
    kept = await run(tmp_path, "SELECT idempotency_key, result FROM prokos_executions")
    assert kept["rows"] == [{"idempotency_key": "1-1", "result": json.dumps(first)}]


async def test_values_a_person_must_not_see_are_not_in_the_table_of_keys(tmp_path: Path) -> None:
    await run(tmp_path, "INSERT INTO orders (id) VALUES (:id)", {"id": "4111-1111"}, exactly_once=True)
    kept = await run(tmp_path, "SELECT * FROM prokos_executions")
    assert "4111" not in json.dumps(kept)


async def test_a_business_error_can_have_a_message_and_says_what_failed(tmp_path: Path) -> None:
    await add(tmp_path, "A")
    rule = {"errno": 1555, "constraint": "orders.id", "code": "DUPLICATE", "message": "There is one."}
    with pytest.raises(BusinessError) as error:
        await run(tmp_path, "INSERT INTO orders (id) VALUES ('A')", errors=[rule])
    assert (error.value.code, error.value.message) == ("DUPLICATE", "There is one.")
    assert error.value.variables == {"sqlError": {"errno": 1555, "constraint": "orders.id"}}


async def test_a_pool_smaller_than_the_concurrency_makes_tasks_wait(tmp_path: Path) -> None:
    insert = "INSERT INTO orders (id) VALUES (:id)"
    options: dict[str, Any] = {"concurrency": 8, "pool_size": 2, "lock_timeout": "2m", "setup": [TABLE]}
    async with sql_bench.executing(insert, workdir=tmp_path, **options) as executor:
        work = (executor.execute({"id": str(n)}, context(str(n))) for n in range(40))
        assert await asyncio.gather(*work) == [{"rowCount": 1}] * 40
