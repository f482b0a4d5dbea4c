"""The `sql` executor on PostgreSQL and MariaDB when something goes wrong: locks, time-outs, cancelled tasks, killed
servers, lost answers; and that exactly-once writes happen once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from engine.sql_proxy import Proxy
from engine.sql_server import Server
from engine.sql_servers import MariaDb, PostgreSql
from prokos.tde import FatalFailure, RetryableFailure
from prokos.tde.sql import threads as sql_threads
from unit.sql_bench import context, executing, run

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = "CREATE TABLE IF NOT EXISTS orders (id varchar(50) PRIMARY KEY, n int DEFAULT 0)"
SLEEP = {"postgresql": "SELECT 1 AS n FROM pg_sleep(:seconds)", "mysql": "SELECT 1 AS n, SLEEP(:seconds)"}


@pytest.fixture(scope="module", params=[PostgreSql, MariaDb], ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with request.param.running() as started:
        yield started


@pytest.fixture(autouse=True)
def tables(server: Server) -> None:
    for table in ("orders", "prokos_executions"):
        server.query(f"DROP TABLE IF EXISTS {table}")
    server.query(TABLE)


def slowly(server: Server, *before: str) -> list[dict[str, str]]:
    """Statements, and then one that sleeps."""
    names = [{"name": f"s{number}", "statement": statement} for number, statement in enumerate(before)]
    return [*names, {"name": "sleep", "statement": SLEEP[server.name]}]


# --- locks and time-outs --------------------------------------------------------------------------------------


async def test_a_lock_time_out_is_tried_again(server: Server) -> None:
    server.query("INSERT INTO orders VALUES ('A', 0)")
    holding = slowly(server, "UPDATE orders SET n = 1")
    async with executing(None, url=server.url, statements=holding) as other:
        task = asyncio.create_task(other.execute({"seconds": 600}, context()))
        await asyncio.to_thread(server.wait_until_sleeping, 1)
        with pytest.raises(RetryableFailure, match=r"55P03|1205"):
            await run("UPDATE orders SET n = 2", url=server.url, lock_timeout="1s")
        task.cancel()
        await asyncio.wait([task])
    assert await run("UPDATE orders SET n = 2", url=server.url) == {"rowCount": 1}


async def test_a_statement_time_out_is_tried_again(server: Server) -> None:
    numbers = {"postgresql": "generate_series(1, 1000000)", "mysql": "seq_1_to_1000000"}[server.name]
    endless = f"SELECT count(*) AS n FROM {numbers} AS a, {numbers} AS b"
    with pytest.raises(RetryableFailure, match=r"57014|1969"):
        await run(endless, url=server.url, statement_timeout="300ms")


async def test_a_statement_never_outlives_its_task_by_much(server: Server) -> None:
    """A worker that was killed can end nothing; so the server has to."""
    ask = {
        "postgresql": "SELECT current_setting('statement_timeout') AS a, current_setting("
        "'idle_in_transaction_session_timeout') AS b",
        "mysql": "SELECT CONCAT(ROUND(@@max_statement_time), 's') AS a, CONCAT(@@idle_transaction_timeout, 's') AS b",
    }
    async with executing(ask[server.name], url=server.url) as executor:
        output = await executor.execute({}, context(timeout=20))
    assert output["rows"] == [{"a": "25s", "b": "25s"}]


async def test_a_deadlock_is_tried_again_and_then_succeeds(server: Server) -> None:
    server.query("INSERT INTO orders VALUES ('A', 0), ('B', 0)")

    def both(first: str, second: str) -> list[dict[str, str]]:
        update = "UPDATE orders SET n = n + 1 WHERE id = '{}'"
        sleep = SLEEP[server.name].replace(":seconds", "2")
        texts = (update.format(first), sleep, update.format(second))
        return [{"name": f"s{number}", "statement": text} for number, text in enumerate(texts)]

    tasks = [run(None, url=server.url, statements=both(*order), concurrency=1) for order in ("AB", "BA")]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert [type(failure) for failure in failures] == [RetryableFailure]
    assert "40P01" in str(failures[0]) or "1213" in str(failures[0])
    assert sorted(server.query("SELECT id, n FROM orders")) == [("A", 1), ("B", 1)]


async def test_a_serialization_failure_is_tried_again(server: Server) -> None:
    server.query("INSERT INTO orders VALUES ('A', 0)")
    read = {"name": "read", "statement": "SELECT n FROM orders"}
    sleep = {"name": "sleep", "statement": SLEEP[server.name].replace(":seconds", "2")}
    write = {"name": "write", "statement": "UPDATE orders SET n = n + 1"}
    statements = [read, sleep, write]
    tasks = [run(None, url=server.url, statements=statements, isolation="serializable") for _ in range(2)]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == [RetryableFailure]
    assert server.query("SELECT n FROM orders") == [(1,)]


# --- cancelled tasks ------------------------------------------------------------------------------------------


async def test_cancelling_ends_the_statement_on_the_server(server: Server) -> None:
    statements = slowly(server, "INSERT INTO orders (id) VALUES ('A')")
    async with executing(None, url=server.url, statements=statements, concurrency=1) as executor:
        for _ in range(2):
            task = asyncio.create_task(executor.execute({"seconds": 600}, context()))
            await asyncio.to_thread(server.wait_until_sleeping, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(server.wait_until_sleeping, 0)
        assert server.query("SELECT * FROM orders") == []
        assert (await executor.execute({"seconds": 0}, context()))["results"]["s0"] == {"rowCount": 1}


async def test_cancelling_cuts_the_connection_of_a_server_that_hangs(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_threads, "CANCEL_SECONDS", 0.3)
    async with executing(SLEEP[server.name], url=server.url, concurrency=1) as executor:
        task = asyncio.create_task(executor.execute({"seconds": 600}, context()))
        await asyncio.to_thread(server.wait_until_sleeping, 1)
        hanging = _backend(server)
        os.kill(hanging, signal.SIGSTOP)
        try:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(20):
                    await task
        finally:
            os.kill(hanging, signal.SIGCONT)
    await asyncio.to_thread(server.wait_until_sleeping, 0)


def _backend(server: Server) -> int:
    if isinstance(server, MariaDb):
        return server.pid
    return int(server.query("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'")[0][0])


# --- killed servers and lost answers --------------------------------------------------------------------------


async def test_a_killed_server_is_tried_again_and_exactly_once_holds(server: Server) -> None:
    statements = slowly(server, "INSERT INTO orders (id) VALUES (:id)", "UPDATE orders SET n = n + 1 WHERE id = :id")
    async with executing(None, url=server.url, statements=statements, exactly_once=True) as executor:
        first = await executor.execute({"id": "A", "seconds": 0}, context("1"))
        task = asyncio.create_task(executor.execute({"id": "B", "seconds": 600}, context("2")))
        await asyncio.to_thread(server.wait_until_sleeping, 1)
        server.kill()
        try:
            with pytest.raises(RetryableFailure):
                await task
            with pytest.raises(RetryableFailure):
                await executor.execute({"id": "B", "seconds": 0}, context("3"))
        finally:
            server.start()
        # What was under way is gone, what was committed is there; both tasks come again.
        assert server.query("SELECT id, n FROM orders") == [("A", 1)]
        assert await executor.execute({"id": "A", "seconds": 0}, context("1")) == first
        assert await executor.execute({"id": "B", "seconds": 0}, context("2")) == first
    assert sorted(server.query("SELECT id, n FROM orders")) == [("A", 1), ("B", 1)]


@pytest.mark.parametrize("exactly_once", [True, False])
async def test_a_commit_whose_answer_is_lost_is_not_done_again(server: Server, exactly_once: bool) -> None:
    assert isinstance(server, PostgreSql | MariaDb)
    server.query("INSERT INTO orders VALUES ('A', 0)")
    user, database = {"postgresql": ("postgres", "postgres"), "mysql": ("root", "orders")}[server.name]
    with Proxy.before(server.socket) as proxy:
        url = f"{server.name}://{user}@127.0.0.1:{proxy.port}/{database}"
        async with executing("UPDATE orders SET n = n + 1", url=url, exactly_once=exactly_once) as executor:
            proxy.lose_next_commit()
            with pytest.raises(RetryableFailure):
                await executor.execute({}, context())
            assert proxy.lost == 1
            assert await executor.execute({}, context()) == {"rowCount": 1}
    # Without the table of keys the second attempt cannot know of the first: the test can fail.
    assert server.query("SELECT n FROM orders") == [(1 if exactly_once else 2,)]


async def test_attempts_at_once_with_one_key_execute_once(server: Server) -> None:
    server.query("INSERT INTO orders VALUES ('A', 0)")
    update = "UPDATE orders SET n = n + 1 WHERE id = :id"
    async with contextlib.AsyncExitStack() as workers:
        options: dict[str, Any] = {"url": server.url, "exactly_once": True}
        executors = [await workers.enter_async_context(executing(update, **options)) for _ in range(4)]
        outputs = await asyncio.gather(*(one.execute({"id": "A"}, context()) for one in executors for _ in range(4)))
    assert outputs == [{"rowCount": 1}] * 16
    assert server.query("SELECT n FROM orders") == [(1,)]
    assert server.query("SELECT executor, idempotency_key, result FROM prokos_executions") == [
        ("orders", "1-1", '{"rowCount": 1}')
    ]


async def test_executors_and_tasks_have_results_of_their_own(server: Server) -> None:
    insert = "INSERT INTO orders (id) VALUES (:id) RETURNING id"
    options: dict[str, Any] = {"url": server.url, "exactly_once": True, "exactly_once_table": "kept"}
    server.query("DROP TABLE IF EXISTS kept")
    for name, key, order in (("a", "1", "A"), ("a", "2", "B"), ("b", "1", "C"), ("a", "1", "A")):
        output = await run(insert, {"id": order}, key=key, name=name, **options)
        assert output == {"rows": [{"id": order}], "rowCount": 1}
    assert len(server.query("SELECT * FROM orders")) == len(server.query("SELECT * FROM kept")) == 3
    with pytest.raises(FatalFailure, match=r"the key 1 is in kept with other parameters: another engine .* delete the"):
        await run(insert, {"id": "D"}, key="1", name="a", **options)
    assert len(server.query("SELECT * FROM orders")) == 3


async def test_a_task_that_fails_leaves_no_key(server: Server) -> None:
    insert = "INSERT INTO orders (id) VALUES (:id)"
    server.query("INSERT INTO orders VALUES ('A', 0)")
    with pytest.raises(FatalFailure, match="uplicate"):
        await run(insert, {"id": "A"}, url=server.url, exactly_once=True)
    server.query("DELETE FROM orders")
    assert await run(insert, {"id": "A"}, url=server.url, exactly_once=True) == {"rowCount": 1}


async def test_old_keys_are_deleted_when_a_worker_starts(server: Server) -> None:
    options: dict[str, Any] = {"url": server.url, "exactly_once": True, "exactly_once_retention": "2h"}
    for key in ("old", "new"):
        await run("SELECT 1 AS n", key=key, **options)
    minutes = {"postgresql": "interval '121 minutes'", "mysql": "INTERVAL 121 MINUTE"}[server.name]
    server.query(f"UPDATE prokos_executions SET executed_at = executed_at - {minutes} WHERE idempotency_key = 'old'")
    server.query("UPDATE prokos_executions SET executor = 'orders'")
    await run("SELECT 1 AS n", key="new", **options)
    assert server.query("SELECT idempotency_key FROM prokos_executions") == [("new",)]


async def test_a_statement_that_ends_the_transaction_is_found_out(server: Server) -> None:
    if server.name == "mysql":
        with pytest.raises(FatalFailure, match="ended the transaction, as data definition does on MariaDB"):
            await run("TRUNCATE orders", url=server.url, exactly_once=True)
        with pytest.raises(FatalFailure, match="a statement committed by itself"):
            await run("TRUNCATE orders", url=server.url, exactly_once=True)
    assert await run("TRUNCATE orders", url=server.url) in ({"rowCount": 0}, {"rowCount": -1})


async def test_faults_leave_no_connection_and_no_thread(server: Server) -> None:
    process = psutil.Process()
    before = len(process.net_connections("all"))
    async with executing(SLEEP[server.name], url=server.url) as executor:
        for _ in range(5):
            task = asyncio.create_task(executor.execute({"seconds": 600}, context()))
            await asyncio.to_thread(server.wait_until_sleeping, 1)
            task.cancel()
            await asyncio.wait([task])
        assert len(process.net_connections("all")) - before <= 4
