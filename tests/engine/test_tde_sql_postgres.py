"""The `sql` executor on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest

from engine.sql_servers import PostgreSql
from prokos.tde import BusinessError, FatalFailure, RetryableFailure
from prokos.tde.sql import threads as sql_threads
from unit import sql_bench
from unit.sql_bench import context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from prokos.tde.sql.executor import SqlExecutor

TABLE = "CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, amount numeric, placed timestamptz, doc jsonb)"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSql]:
    with PostgreSql.running() as started:
        yield started


@pytest.fixture(autouse=True)
def empty(server: PostgreSql) -> None:
    server.query("DROP TABLE IF EXISTS orders, lines, counters")


@contextlib.asynccontextmanager
async def executing(
    server: PostgreSql, statement: str, *, options: str = "", **settings: Any
) -> AsyncIterator[SqlExecutor]:
    settings.setdefault("setup", [TABLE])
    url = server.url + (f"&options={options}" if options else "")
    async with sql_bench.executing(statement, url=url, **settings) as executor:
        yield executor


async def run(
    server: PostgreSql, statement: str, data: dict[str, Any] | None = None, **settings: Any
) -> dict[str, Any]:
    async with executing(server, statement, **settings) as executor:
        return await executor.execute(data or {}, context())


async def test_writes_and_reads_rows(server: PostgreSql) -> None:
    statement = "INSERT INTO orders VALUES (:id, :amount, :placed, :doc) RETURNING id"
    data = {"id": "A-1", "amount": 12.5, "placed": "2026-03-01T12:00:00+01:00", "doc": {"lines": [1]}}
    assert await run(server, statement, data) == {"rows": [{"id": "A-1"}], "rowCount": 1}
    output = await run(server, "SELECT * FROM orders WHERE id = :id", {"id": "A-1"}, options="-c timezone=UTC")
    assert output["rows"] == [
        {"id": "A-1", "amount": 12.5, "placed": "2026-03-01T11:00:00+00:00", "doc": {"lines": [1]}}
    ]
    assert await run(server, "DELETE FROM orders") == {"rowCount": 1}


async def test_types_survive_as_json(server: PostgreSql) -> None:
    statement = """
        SELECT 9007199254740993::bigint AS big, 12345678901234567890::numeric AS bigger, 0.1::numeric AS tenth,
               'NaN'::float8 AS nan, true AS flag, NULL AS nothing, '\\x00ff'::bytea AS bytes,
               '00000000-0000-0000-0000-000000000001'::uuid AS uuid, ARRAY[1, 2] AS list,
               interval '1 day 90 seconds' AS length, '10.0.0.0/8'::cidr AS network, DATE '2026-03-01' AS day
    """
    assert (await run(server, statement))["rows"] == [
        {
            "big": 9007199254740993,
            "bigger": "12345678901234567890",
            "tenth": 0.1,
            "nan": "nan",
            "flag": True,
            "nothing": None,
            "bytes": "AP8=",
            "uuid": "00000000-0000-0000-0000-000000000001",
            "list": [1, 2],
            "length": "P1DT90S",
            "network": "10.0.0.0/8",
            "day": "2026-03-01",
        }
    ]


@pytest.mark.parametrize(
    "value", ["'; DROP TABLE orders; --", "' OR '1'='1", "%s", "%(id)s", ":id", "$1", "\\'", "ü🎈"]
)
async def test_a_value_is_never_part_of_the_statement(server: PostgreSql, value: str) -> None:
    await run(server, "INSERT INTO orders (id) VALUES (:id), ('other')", {"id": value})
    assert (await run(server, "SELECT id FROM orders WHERE id = :id", {"id": value}))["rows"] == [{"id": value}]


async def test_casts_and_percent_signs_are_left_alone(server: PostgreSql) -> None:
    statement = "SELECT CAST(:n AS text) || '%' AS a, '5'::int AS b, '12:30'::time AS c"
    assert (await run(server, statement, {"n": 1}))["rows"] == [{"a": "1%", "b": 5, "c": "12:30:00"}]


async def test_a_huge_result_stops_at_the_limit_in_flat_memory(server: PostgreSql) -> None:
    before = psutil.Process().memory_info().rss
    with pytest.raises(FatalFailure, match=r"more rows than spec\.sql\.maxRows \(10\)"):
        await run(server, "SELECT n, repeat('x', 1000) AS x FROM generate_series(1, 1000000) n", max_rows=10)
    assert psutil.Process().memory_info().rss - before < 100_000_000


async def test_a_duplicate_key_can_be_a_business_error(server: PostgreSql) -> None:
    insert = "INSERT INTO orders (id) VALUES (:id)"
    await run(server, insert, {"id": "A-1"})
    with pytest.raises(FatalFailure, match=r"duplicate key .* \(SQLSTATE 23505\)") as failure:
        await run(server, insert, {"id": "A-1"})
    assert "A-1" not in str(failure.value)
    with pytest.raises(BusinessError) as error:
        await run(server, insert, {"id": "A-1"}, errors=[{"sqlstate": "23505", "code": "DUPLICATE"}])
    assert error.value.code == "DUPLICATE"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELEKT 1", "syntax error"),
        ("SELECT nothing FROM orders", "does not exist"),
        ("SELECT CAST(:card AS integer) AS n", "invalid input syntax for type integer: <card>"),
        ("SELECT 1 / 0 AS n", "division by zero"),
    ],
)
async def test_what_no_repetition_mends_is_fatal(server: PostgreSql, statement: str, message: str) -> None:
    with pytest.raises(FatalFailure, match=message) as failure:
        await run(server, statement, {"card": "4111-1111"})
    assert "4111" not in str(failure.value)


@pytest.mark.parametrize("value", ["a\x00b", "\ud800"])
async def test_text_that_postgresql_cannot_store_is_fatal(server: PostgreSql, value: str) -> None:
    with pytest.raises(FatalFailure):
        await run(server, "INSERT INTO orders (id) VALUES (:id)", {"id": value})


async def test_a_lock_time_out_is_tried_again(server: PostgreSql) -> None:
    await run(server, "INSERT INTO orders (id) VALUES ('A-1')")
    with psycopg.connect(server.url) as other:
        other.execute("SELECT 1 FROM orders FOR UPDATE")
        with pytest.raises(RetryableFailure, match="55P03"):
            await run(server, "DELETE FROM orders", options="-c lock_timeout=50ms", setup=[])


async def test_a_deadlock_is_tried_again(server: PostgreSql) -> None:
    await run(server, "INSERT INTO orders (id) VALUES ('1'), ('2')")
    # A server looks for a deadlock once in each wait: this one never, so the task's does, when there is one.
    with psycopg.connect(server.url, options="-c deadlock_timeout=1h") as other:
        other.execute("SELECT 1 FROM orders WHERE id = '2' FOR UPDATE")
        statement = "SELECT id FROM orders ORDER BY id FOR UPDATE"
        task = asyncio.create_task(run(server, statement, options="-c deadlock_timeout=3s", setup=[]))
        await asyncio.to_thread(server.wait_until, "SELECT 1 FROM pg_locks WHERE NOT granted")
        await asyncio.to_thread(other.execute, "SELECT 1 FROM orders WHERE id = '1' FOR UPDATE")
        with pytest.raises(RetryableFailure, match="40P01"):
            await task


async def test_a_statement_time_out_is_tried_again(server: PostgreSql) -> None:
    with pytest.raises(RetryableFailure, match="57014"):
        await run(server, "SELECT pg_sleep(600)", options="-c statement_timeout=50ms")


async def test_cancelling_ends_the_statement_on_the_server(server: PostgreSql) -> None:
    async with executing(server, "SELECT pg_sleep(:seconds), 1 AS n", concurrency=1) as executor:
        task = asyncio.create_task(executor.execute({"seconds": 600}, context()))
        await asyncio.to_thread(server.wait_until_sleeping, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(server.wait_until_sleeping, 0)
        assert (await executor.execute({"seconds": 0}, context()))["rowCount"] == 1


async def test_cancelling_one_that_waits_for_a_thread_does_not_wait_for_the_others(server: PostgreSql) -> None:
    async with executing(server, "SELECT pg_sleep(600)", concurrency=1) as executor:
        first, second = (asyncio.create_task(executor.execute({}, context())) for _ in range(2))
        await asyncio.to_thread(server.wait_until_sleeping, 1)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert not first.done()
        first.cancel()
        await asyncio.wait([first])


async def test_cancelling_cuts_the_connection_of_a_server_that_hangs(
    server: PostgreSql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_threads, "CANCEL_SECONDS", 0.3)
    async with executing(server, "SELECT pg_sleep(600)", concurrency=1) as executor:
        task = asyncio.create_task(executor.execute({}, context()))
        await asyncio.to_thread(server.wait_until_sleeping, 1)
        [(backend,)] = server.query("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        os.kill(backend, signal.SIGSTOP)
        try:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        finally:
            os.kill(backend, signal.SIGCONT)
    await asyncio.to_thread(server.wait_until_sleeping, 0)


async def test_workers_that_start_at_once_set_up_once(server: PostgreSql) -> None:
    setup = [
        TABLE,
        "CREATE TABLE IF NOT EXISTS lines (n int)",
        "CREATE INDEX IF NOT EXISTS by_n ON lines (n)",
        "INSERT INTO lines SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM lines)",
        "COMMENT ON TABLE lines IS '100% :of them'",
    ]
    counting = "SELECT count(*) AS n FROM lines"
    outputs = await asyncio.gather(*(run(server, counting, setup=setup) for _ in range(10)))
    assert outputs == [{"rows": [{"n": 1}], "rowCount": 1}] * 10


async def test_runs_as_many_statements_at_once_as_the_executor_may(server: PostgreSql) -> None:
    async with executing(server, "SELECT pg_sleep(600)", concurrency=4) as executor:
        tasks = [asyncio.create_task(executor.execute({}, context())) for _ in range(4)]
        await asyncio.to_thread(server.wait_until_sleeping, 4)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_server_that_stops_is_tried_again_and_works_after_its_restart(server: PostgreSql) -> None:
    async with executing(server, "INSERT INTO orders (id) VALUES (:id)") as executor:
        await executor.execute({"id": "before"}, context())
        server.stop()
        try:
            with pytest.raises(RetryableFailure) as failure:
                await executor.execute({"id": "during"}, context())
        finally:
            server.start()
        assert "during" not in str(failure.value)
        assert await executor.execute({"id": "after"}, context()) == {"rowCount": 1}
    assert server.query("SELECT id FROM orders ORDER BY id") == [("after",), ("before",)]


async def test_a_server_that_stops_during_a_statement_is_tried_again(server: PostgreSql) -> None:
    async with executing(server, "SELECT pg_sleep(600)") as executor:
        task = asyncio.create_task(executor.execute({}, context()))
        await asyncio.to_thread(server.wait_until_sleeping, 1)
        server.stop()
        try:
            with pytest.raises(RetryableFailure):
                await task
        finally:
            server.start()


async def test_a_server_that_is_down_at_the_start_is_set_up_later(server: PostgreSql) -> None:
    server.stop()
    try:
        executing_later = executing(server, "SELECT id FROM orders")
        executor = await executing_later.__aenter__()
        with pytest.raises(RetryableFailure):
            await executor.execute({}, context())
    finally:
        server.start()
    assert await executor.execute({}, context()) == {"rows": [], "rowCount": 0}
    await executing_later.__aexit__(None, None, None)


async def test_messages_do_not_hold_the_password() -> None:
    executor = sql_bench.make("SELECT 1 AS n", url="postgresql://me:hunter%402@127.0.0.1:1/orders")
    await executor.start()
    with pytest.raises(RetryableFailure, match="127") as failure:
        await executor.execute({}, context())
    await executor.close()
    assert "hunter" not in str(failure.value)
