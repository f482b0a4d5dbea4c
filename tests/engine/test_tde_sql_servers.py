"""The `sql` executor on PostgreSQL and MariaDB alike: statements, transactions, limits, errors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from engine.sql_server import Server
from engine.sql_servers import MariaDb, PostgreSql
from prokos.tde import BusinessError, FatalFailure
from unit.sql_bench import context, executing, run

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = (
    "CREATE TABLE orders (id varchar(50) PRIMARY KEY, amount numeric(12, 2), version int DEFAULT 1,"
    " CONSTRAINT positive CHECK (amount > 0))",
    "CREATE TABLE items (id varchar(50), sku varchar(50), CONSTRAINT of_order FOREIGN KEY (id) REFERENCES orders (id),"
    " CONSTRAINT once UNIQUE (id, sku))",
)
ADD = "INSERT INTO orders (id, amount) VALUES (:id, :amount)"


@pytest.fixture(scope="module", params=[PostgreSql, MariaDb], ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with request.param.running() as started:
        yield started


@pytest.fixture(autouse=True)
def tables(server: Server) -> None:
    for table in ("items", "orders", "prokos_executions", "made"):
        server.query(f"DROP TABLE IF EXISTS {table}")
    for table in TABLES:
        server.query(table)


async def test_writes_and_reads(server: Server) -> None:
    assert await run(ADD, {"id": "A-1", "amount": 12.5}, url=server.url) == {"rowCount": 1}
    output = await run("SELECT id, amount FROM orders WHERE id = :id", {"id": "A-1"}, url=server.url)
    assert output == {"rows": [{"id": "A-1", "amount": 12.5}], "rowCount": 1}
    # A row that is found counts, whether it changes or not.
    assert await run("UPDATE orders SET amount = 12.5", url=server.url) == {"rowCount": 1}
    assert await run("DELETE FROM orders", url=server.url) == {"rowCount": 1}


async def test_a_write_may_return_rows(server: Server) -> None:
    output = await run(f"{ADD} RETURNING id", {"id": "A-1", "amount": 1}, url=server.url)
    assert output == {"rows": [{"id": "A-1"}], "rowCount": 1}
    assert len(server.query("SELECT id FROM orders")) == 1


async def test_a_batch_runs_with_every_element(server: Server) -> None:
    lines = [{"sku": f"S-{n}"} for n in range(1000)]
    await run(ADD, {"id": "A-1", "amount": 1}, url=server.url)
    statement = "INSERT INTO items (id, sku) VALUES (:id, :sku)"
    output = await run(statement, {"id": "A-1", "order": {"lines": lines}}, url=server.url, batch="order.lines")
    assert output == {"rowCount": 1000}
    assert server.query("SELECT count(DISTINCT sku) FROM items WHERE id = 'A-1'") == [(1000,)]
    assert await run(statement, {"id": "A-1", "lines": []}, url=server.url, batch="lines") == {"rowCount": 0}


async def test_an_element_that_fails_undoes_the_whole_batch(server: Server) -> None:
    data = {"orders": [{"id": "A-1", "amount": 1}, {"id": "A-2", "amount": -1}]}
    with pytest.raises(FatalFailure, match="positive"):
        await run(ADD, data, url=server.url, batch="orders")
    assert server.query("SELECT * FROM orders") == []


async def test_what_is_expected_of_a_batch_is_expected_of_every_element(server: Server) -> None:
    await run(ADD, {"orders": [{"id": "A", "amount": 1}, {"id": "B", "amount": 1}]}, url=server.url, batch="orders")
    update = "UPDATE orders SET version = version + 1 WHERE id = :id AND version = :version"
    options: dict[str, Any] = {"url": server.url, "batch": "orders", "expect": {"rows": 1, "code": "STALE"}}
    with pytest.raises(BusinessError, match="0 rows for element 1 of orders, 1 expected") as error:
        await run(update, {"version": 1, "orders": [{"id": "A"}, {"id": "B", "version": 7}]}, **options)
    assert error.value.code == "STALE"
    assert server.query("SELECT DISTINCT version FROM orders") == [(1,)]
    assert await run(update, {"version": 1, "orders": [{"id": "A"}, {"id": "B"}]}, **options) == {"rowCount": 2}


STATEMENTS: list[dict[str, Any]] = [
    {"name": "order", "statement": ADD},
    {"name": "lines", "statement": "INSERT INTO items (id, sku) VALUES (:id, :sku)", "batch": "lines"},
    {"name": "found", "statement": "SELECT sku FROM items WHERE id = :id ORDER BY sku", "expect": {"atLeast": 2}},
]


async def test_several_statements_are_one_transaction(server: Server) -> None:
    data = {"id": "A-1", "amount": 5, "lines": [{"sku": "b"}, {"sku": "a"}]}
    output = await run(None, data, url=server.url, statements=STATEMENTS)
    assert output == {
        "results": {
            "order": {"rowCount": 1},
            "lines": {"rowCount": 2},
            "found": {"rows": [{"sku": "a"}, {"sku": "b"}], "rowCount": 2},
        }
    }


@pytest.mark.parametrize("lines", [[{"sku": "a"}], [{"sku": "a"}, {"sku": "a"}]], ids=["too few rows", "a duplicate"])
async def test_one_statement_that_fails_undoes_the_others(server: Server, lines: list[Any]) -> None:
    with pytest.raises(FatalFailure, match=r"'found': 1 rows, at least 2 expected; everything was undone|uplicate"):
        await run(None, {"id": "A-1", "amount": 5, "lines": lines}, url=server.url, statements=STATEMENTS)
    assert server.query("SELECT * FROM orders") == []


@pytest.mark.parametrize(
    ("condition", "ids", "found"),
    [
        ("IN (:ids)", ["A", "C"], "AC"),
        ("in :ids", ["A"], "A"),
        ("NOT IN (:ids)", ["A", "C"], "B"),
        ("IN (:ids)", [], ""),
        ("NOT IN ( :ids )", [], "ABC"),
        ("IN (:ids)", "B", "B"),
        ("IN (:ids)", ["A') OR ('1'='1", "\\' OR 1=1 -- "], ""),
    ],
)
async def test_a_list_is_as_many_parameters_as_it_has_elements(
    server: Server, condition: str, ids: Any, found: str
) -> None:
    await run(ADD, {"orders": [{"id": n, "amount": 1} for n in "ABC"]}, url=server.url, batch="orders")
    output = await run(f"SELECT id FROM orders WHERE id {condition} ORDER BY id", {"ids": ids}, url=server.url)
    assert "".join(row["id"] for row in output["rows"]) == found


@pytest.mark.parametrize("amounts", [[], [1, 2]])
async def test_a_list_may_be_of_numbers(server: Server, amounts: list[int]) -> None:
    await run(ADD, {"id": "A", "amount": 2}, url=server.url)
    output = await run("SELECT id FROM orders WHERE version + amount IN :of", {"of": amounts}, url=server.url)
    assert output["rowCount"] == 0


async def test_a_large_result_stops_at_the_limit_in_flat_memory(server: Server) -> None:
    many = {
        "postgresql": "SELECT n, repeat('x', 1000) AS x FROM generate_series(1, 1000000) n",
        "mysql": "SELECT seq AS n, repeat('x', 1000) AS x FROM seq_1_to_1000000",
    }[server.name]
    before = psutil.Process().memory_info().rss
    async with executing(many, url=server.url, max_rows=10) as executor:
        for _ in range(3):
            with pytest.raises(FatalFailure, match=r"more rows than spec\.sql\.maxRows \(10\); everything was undone"):
                await executor.execute({}, context())
    with pytest.raises(FatalFailure, match=r"longer than spec\.sql\.maxBytes \(100000\)"):
        await run(many, url=server.url, max_rows=1_000_000, max_bytes=100_000)
    assert psutil.Process().memory_info().rss - before < 100_000_000
    assert server.sleeping() == 0


async def test_the_limit_of_bytes_is_that_of_all_statements_together(server: Server) -> None:
    text = {"statement": "SELECT repeat('ü', 100) AS x"}
    statements = [{"name": "a", **text}, {"name": "b", **text}]
    size = len('{"x": "' + "ü" * 100 + '"}') + 100
    assert len((await run(None, url=server.url, statements=statements, max_bytes=2 * size))["results"]) == 2
    with pytest.raises(FatalFailure, match="maxBytes"):
        await run(None, url=server.url, statements=statements, max_bytes=2 * size - 1)


NUMBERS = {
    "postgresql": {"duplicate": {"sqlstate": "23505"}, "parent": {"sqlstate": "23503"}, "check": {"sqlstate": "23514"}},
    "mysql": {"duplicate": {"errno": 1062}, "parent": {"errno": 1452}, "check": {"errno": 4025}},
}
CONSTRAINTS = {"duplicate": "once", "parent": "of_order", "check": "positive"}
VIOLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "duplicate": ("INSERT INTO items VALUES (:id, :sku), (:id, :sku)", {"id": "A-1", "sku": "S-1234"}),
    "parent": ("INSERT INTO items VALUES (:id, 'x')", {"id": "nowhere"}),
    "check": ("UPDATE orders SET amount = :amount", {"amount": -1234}),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_a_violated_constraint_can_be_a_business_error(server: Server, violation: str) -> None:
    await run(ADD, {"id": "A-1", "amount": 1}, url=server.url)
    statement, data = VIOLATIONS[violation]
    with pytest.raises(FatalFailure) as failure:
        await run(statement, data, url=server.url)
    assert not [value for value in data.values() if str(value) in str(failure.value)]
    for condition in (NUMBERS[server.name][violation], {"constraint": CONSTRAINTS[violation]}):
        rules = [{"contains": "no such text", "code": "OTHER"}, {**condition, "code": violation, "message": "No."}]
        with pytest.raises(BusinessError, match="No") as error:
            await run(statement, data, url=server.url, errors=rules)
        assert error.value.code == violation
        assert error.value.variables["sqlError"]["constraint"] == CONSTRAINTS[violation]


@pytest.mark.parametrize(
    "write",
    [
        "INSERT INTO orders (id) VALUES ('no')",
        "UPDATE orders SET amount = 2",
        "DELETE FROM orders",
        "CREATE TABLE made (n int)",
        "DROP TABLE items",
        "TRUNCATE items",
    ],
)
async def test_the_database_itself_refuses_writes_of_a_read_only_executor(server: Server, write: str) -> None:
    await run(ADD, {"id": "A-1", "amount": 1}, url=server.url)
    with pytest.raises(FatalFailure, match=r"(?i)read.only transaction"):
        await run(write, url=server.url, read_only=True)
    statements = [
        {"name": "unlock", "statement": "SET TRANSACTION READ WRITE"},
        {"name": "write", "statement": write},
    ]
    with pytest.raises(FatalFailure):
        await run(None, url=server.url, read_only=True, statements=statements)
    assert [row[0] for row in server.query("SELECT id FROM orders")] == ["A-1"]
    output = await run("SELECT count(*) AS n FROM items", url=server.url, read_only=True)
    assert output["rows"] == [{"n": 0}]


async def test_isolation_is_that_of_the_settings(server: Server) -> None:
    ask = {"postgresql": "SELECT current_setting('transaction_isolation') AS i", "mysql": "SELECT @@tx_isolation AS i"}
    for level, name in (("serializable", "serializable"), ("readCommitted", "read committed")):
        output = await run(ask[server.name], url=server.url, isolation=level)
        assert output["rows"][0]["i"].lower().replace("-", " ") == name


@pytest.mark.parametrize(
    "statement", ["COMMIT", "  -- end\n rollback", "BEGIN", "START TRANSACTION", "SELECT 1; SELECT 2"]
)
async def test_a_statement_must_leave_the_transaction_alone(server: Server, statement: str) -> None:
    with pytest.raises(ValueError, match=r"not allowed|several statements"):
        await run(statement, url=server.url)


async def test_workers_that_start_at_once_set_up_once(server: Server) -> None:
    setup = [
        "CREATE TABLE IF NOT EXISTS made (n int)",
        "INSERT INTO made SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM made)",
    ]
    counting = "SELECT count(*) AS n FROM made"
    outputs = await asyncio.gather(*(run(counting, url=server.url, setup=setup, exactly_once=True) for _ in range(8)))
    assert [output["rows"] for output in outputs] == [[{"n": 1}]] * 8
