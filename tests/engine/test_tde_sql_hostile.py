"""Hostile input for the `sql` executor on PostgreSQL, and on MariaDB in the modes that change what a quote is."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.sql_server import Server
from engine.sql_servers import MariaDb, PostgreSql
from prokos.tde import FatalFailure
from unit.sql_bench import HOSTILE, context, executing, run

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = [
    pytest.param((PostgreSql,), id="postgresql"),
    pytest.param((MariaDb,), id="mariadb"),
    pytest.param((MariaDb, "--sql-mode=NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT"), id="mariadb-ansi"),
    pytest.param((MariaDb, "--character-set-server=gbk", "--skip-character-set-client-handshake"), id="mariadb-gbk"),
]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    kind, *options = request.param
    with kind.running(*options) as started:
        charset = " CHARACTER SET utf8mb4" if kind is MariaDb else ""
        started.query(f"CREATE TABLE orders (id varchar(200){charset} PRIMARY KEY, note varchar(200){charset})")
        yield started


@pytest.fixture(autouse=True)
def orders(server: Server) -> Iterator[None]:
    """Two rows that are there before, and afterwards."""
    server.query("DELETE FROM orders")
    server.query("INSERT INTO orders (id) VALUES ('A'), ('B')")
    yield
    assert sorted(row[0] for row in server.query("SELECT id FROM orders")) == ["A", "B"]


@pytest.mark.parametrize("value", HOSTILE)
async def test_a_value_is_a_value_wherever_a_parameter_may_stand(server: Server, value: str) -> None:
    quoted = '":v"' if server.name == "postgresql" else "`:v`"
    statement = f"""
        SELECT :v AS v, ':v' AS {quoted}, 1 /* :v ' */ AS n, -- :v '
               (SELECT count(*) FROM orders WHERE id = :v OR id IN (:list)) AS found
        FROM orders WHERE id = 'A' AND :v NOT IN (:list) LIMIT :n
    """
    data = {"v": value, "list": [value + "x", "\\'", "'"[: value != "'"] * 2], "n": 1}
    output = await run(statement, data, url=server.url, types={"v": "text"})
    assert output["rows"] == [{"v": value, ":v": ":v", "n": 1, "found": 0}]


@pytest.mark.parametrize("value", HOSTILE)
async def test_a_value_is_a_value_in_batches_and_keys(server: Server, value: str) -> None:
    statements = [
        {"name": "add", "statement": "INSERT INTO orders (id, note) VALUES (:id, :note)", "batch": "more"},
        {"name": "kept", "statement": "SELECT note FROM orders WHERE id = :own"},
        {"name": "undo", "statement": "DELETE FROM orders WHERE id IN (:ids)"},
    ]
    own = f"own {value}"
    more = [{"id": own, "note": {value: [value]}}, {"id": "other", "note": None}]
    data = {"own": own, "more": more, "ids": [own, "other"], value: value}
    options: dict[str, Any] = {"url": server.url, "statements": statements, "columns": {"note": "json"}}
    output = await run(None, data, key=value, exactly_once=True, **options)
    assert output["results"]["kept"]["rows"] == [{"note": {value: [value]}}]
    assert output["results"]["undo"] == {"rowCount": 2}
    assert await run(None, data, key=value, exactly_once=True, **options) == output
    server.query("DROP TABLE prokos_executions")


@given(
    values=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=40, max_size=40
    )
)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back_as_it_went(server: Server, values: list[str]) -> None:
    columns = ", ".join(f":v{n} AS v{n}, ':v{n}' AS w{n}" for n in range(len(values)))
    data = {f"v{n}": value for n, value in enumerate(values)}
    output = asyncio.run(run(f"SELECT {columns}", data, url=server.url))
    expected = {f"w{n}": f":v{n}" for n in range(len(values))}
    assert output["rows"] == [{**data, **expected}]


async def test_a_text_with_a_nul_is_refused_or_kept(server: Server) -> None:
    if server.name == "postgresql":
        with pytest.raises(FatalFailure, match="NUL"):
            await run("SELECT :v AS v", {"v": "a\0b"}, url=server.url)
    else:
        assert (await run("SELECT :v AS v", {"v": "a\0b"}, url=server.url))["rows"] == [{"v": "a\0b"}]


async def test_bytes_that_are_no_text_are_no_text(server: Server) -> None:
    wrong = {
        "postgresql": "convert_from('\\xff', 'UTF8')",
        "mysql": "CAST(CONVERT(X'ff' USING utf8mb4) AS INTEGER)",
    }[server.name]
    with pytest.raises(FatalFailure, match=r"invalid byte sequence|Invalid utf8mb4 character string"):
        await run(f"INSERT INTO orders (id) SELECT {wrong}", url=server.url)


async def test_a_huge_value_is_refused_and_forgotten(server: Server) -> None:
    huge = {"postgresql": "repeat('x', 50000000)", "mysql": "REPEAT('x', 15000000)"}[server.name]
    process = psutil.Process()
    async with executing(f"SELECT {huge} AS v", url=server.url, read_only=True) as executor:
        before = process.memory_info().rss
        for _ in range(5):
            with pytest.raises(FatalFailure, match=r"longer than spec\.sql\.maxBytes \(1000000\)"):
                await executor.execute({}, context())
        assert process.memory_info().rss - before < 60_000_000


async def test_a_huge_value_in_a_message_is_not_passed_on(server: Server) -> None:
    value = json.dumps({"card": "4111" * 100_000})
    with pytest.raises(FatalFailure) as failure:
        await run("INSERT INTO orders (id) VALUES (CONCAT('x', CAST(:v AS integer)))", {"v": value}, url=server.url)
    assert len(str(failure.value)) < 1_500
    assert "4111" not in str(failure.value)


async def test_a_wrong_statement_does_not_show_its_values(server: Server) -> None:
    for statement in ("SELECT :v FROM WHERE", "INSERT INTO orders (id) VALUES (:v), (:v)", "SELECT nowhere(:v)"):
        with pytest.raises(FatalFailure) as failure:
            await run(statement, {"v": "secret's 4111-\n1111"}, url=server.url)
        assert "4111" not in str(failure.value)


async def test_a_list_as_long_as_can_be(server: Server) -> None:
    ids = ["A", *(f"no {n}" for n in range(9_999))]
    output = await run("SELECT id FROM orders WHERE id IN (:ids)", {"ids": ids}, url=server.url)
    assert output == {"rows": [{"id": "A"}], "rowCount": 1}
