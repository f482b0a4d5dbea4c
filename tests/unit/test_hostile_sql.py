"""Hostile input and hostile databases for the `sql` executor: none ends as a hang, a leak or a crash.

The same on PostgreSQL and MariaDB is in `tests/engine/test_tde_sql_hostile.py`.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sqlite3
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prokos.resources.sql_text import DATABASES, SqlText
from prokos.tde import FatalFailure, RetryableFailure
from prokos.tde.sql.parameters import MOST_ELEMENTS
from unit.sql_bench import HOSTILE, context, executing, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TABLE = "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, note)"


@pytest.fixture(autouse=True)
def orders(tmp_path: Path) -> Iterator[None]:
    """Two rows that are there before, and afterwards."""
    rows = [("A", None), ("B", None)]
    with closing(sqlite3.connect(tmp_path / "orders.db")) as connection:
        connection.execute(TABLE)
        connection.executemany("INSERT INTO orders VALUES (?, ?)", rows)
        connection.commit()
    yield
    with closing(sqlite3.connect(tmp_path / "orders.db")) as connection:
        assert connection.execute("SELECT id, note FROM orders ORDER BY id").fetchall()[:2] == rows


# --- injection through every field ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", HOSTILE)
async def test_a_value_is_a_value_wherever_a_parameter_may_stand(tmp_path: Path, value: str) -> None:
    statement = """
        SELECT :v AS "v", ':v' AS literal, ':v;' /* :v */ AS ":v", [note] AS [:v ], -- :v
               (SELECT count(*) FROM orders WHERE id = :v OR id IN (:list) OR id LIKE :v || 'x') AS found
        FROM orders WHERE id = 'A' AND :v NOT IN (:list) LIMIT :n
    """
    data = {"v": value, "list": [value + "x", "'"[: value != "'"] * 2], "n": 1}
    output = await run(statement, data, workdir=tmp_path)
    assert output["rows"] == [{"v": value, "literal": ":v", ":v": ":v;", ":v ": None, "found": 0}]


@pytest.mark.parametrize("value", HOSTILE)
async def test_a_value_is_a_value_in_batches_types_and_keys(tmp_path: Path, value: str) -> None:
    statements = [
        {"name": "add", "statement": "INSERT INTO orders VALUES (:id, :note)", "batch": "more", "expect": {"rows": 1}},
        {"name": "kept", "statement": "SELECT note FROM orders WHERE id = :own"},
        {"name": "undo", "statement": "DELETE FROM orders WHERE id = :own"},
    ]
    own = f"own {value}"
    data = {"own": own, "more": [{"id": own, "note": {value: [value]}}], value: value}
    types = {"note": "json", "own": "text"}
    options: dict[str, Any] = {"workdir": tmp_path, "statements": statements, "types": types, "exactly_once": True}
    output = await run(None, data, columns={"note": "json"}, key=value, **options)
    assert output["results"]["kept"]["rows"] == [{"note": {value: [value]}}]
    assert await run(None, data, columns={"note": "json"}, key=value, **options) == output


@given(value=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back_as_it_went(tmp_path: Path, value: str) -> None:
    output = asyncio.run(run("SELECT :v AS v, ':v' AS w", {"v": value}, workdir=tmp_path))
    assert output["rows"] == [{"v": value, "w": ":v"}]


@given(
    pieces=st.lists(
        st.sampled_from(
            [":v", "'", '"', "`", "--", "/*", "*/", "\\", "\n", "$$", "$a$", "#", "[", "]", " IN (:v) ", "x"]
        )
    )
)
@settings(max_examples=500)
def test_no_parameter_is_found_within_quotes_or_comments(pieces: list[str]) -> None:
    """What is left of a statement without its quoted parts has no quote; so no parameter stands within any."""
    for database in DATABASES:
        text = SqlText("SELECT " + "".join(pieces), database)
        try:
            text.check()
        except ValueError:
            continue
        code = "".join(part.text for part in text.parts if part.kind == "code")
        assert not set(code) & {"'", '"'}
        assert all(re.fullmatch("v[vx]*", name) for name in text.parameters)
        inside = [part.text for part in text.parts if part.kind != "code"]
        assert "".join(part.text for part in text.parts) == text.text
        assert all(part.replace(":", "\\:") in text.template() for part in inside)


# --- too much -------------------------------------------------------------------------------------------------


async def test_ten_thousand_rows_meet_the_limits(tmp_path: Path) -> None:
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) SELECT i FROM n"
    assert (await run(many, workdir=tmp_path, max_rows=10_000))["rowCount"] == 10_000
    for limit in ({}, {"max_rows": 9_999}, {"max_rows": 10_000, "max_bytes": 50_000}):
        with pytest.raises(FatalFailure, match=r"spec\.sql\.max(Rows|Bytes) \(\d+\); everything was undone"):
            await run(many, workdir=tmp_path, **limit)


@pytest.mark.parametrize(
    "value",
    [
        "zeroblob(999999999)",
        "hex(zeroblob(15000000))",
        "zeroblob(15000000)",
        "hex(x'ff') || hex(zeroblob(7000000))",
        "randomblob(999999)",
    ],
)
async def test_a_huge_value_is_refused_and_forgotten(tmp_path: Path, value: str) -> None:
    process = psutil.Process()
    async with executing(f"SELECT {value} AS v", workdir=tmp_path) as executor:
        before = process.memory_info().rss
        for _ in range(3):
            with pytest.raises(FatalFailure, match=r"longer than spec\.sql\.maxBytes \(1000000\)|too big"):
                await executor.execute({}, context())
        assert process.memory_info().rss - before < 50_000_000


@pytest.mark.parametrize(
    "statement",
    [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS i FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 'x' UNION ALL SELECT i || i FROM n) SELECT i FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO orders (id) SELECT i FROM n",
    ],
)
async def test_an_endless_statement_ends(tmp_path: Path, statement: str) -> None:
    started = time.monotonic()
    with pytest.raises((FatalFailure, RetryableFailure), match=r"maxRows|maxBytes|interrupted|too big"):
        await run(statement, workdir=tmp_path, statement_timeout="300ms")
    assert time.monotonic() - started < 60


async def test_too_long_a_list_is_refused_before_the_database(tmp_path: Path) -> None:
    statement = "SELECT id FROM orders WHERE id IN (:ids)"
    assert (await run(statement, {"ids": ["A"] * MOST_ELEMENTS}, workdir=tmp_path))["rowCount"] == 1
    with pytest.raises(FatalFailure, match=r"'ids' has 10001 elements; behind IN are at most 10000"):
        await run(statement, {"ids": ["A"] * (MOST_ELEMENTS + 1)}, workdir=tmp_path)


# --- what is no text, no JSON, no number ----------------------------------------------------------------------


async def test_text_that_is_not_utf_8_is_named_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(FatalFailure, match=r"a text in the database is not UTF-8; select it as CAST\(... AS BLOB\)"):
        await run("SELECT CAST(x'73656372657400ff' AS TEXT) AS v", workdir=tmp_path)
    output = await run("SELECT CAST(x'00ff' AS BLOB) AS v", workdir=tmp_path)
    assert output["rows"] == [{"v": "AP8="}]


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", 2**64, -(2**70), {"deep": "\ud800"}])
async def test_a_value_no_database_can_take_is_fatal(tmp_path: Path, value: Any) -> None:
    with pytest.raises(FatalFailure):
        await run("INSERT INTO orders (id) VALUES (:v)", {"v": value}, workdir=tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("9" * 5_000, "Exceeds the limit"),
        ("NaN", "NaN is not JSON"),
        ("{", "Expecting property name"),
        ('"\\ud800"', "half of a surrogate pair"),
    ],
)
async def test_a_column_of_bad_json_is_fatal(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(FatalFailure, match=reason):
        await run("SELECT :v AS doc", {"v": text}, workdir=tmp_path, columns={"doc": "json"})


async def test_a_file_that_is_no_database_is_fatal(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_bytes(b"\xff" * 10_000)
    with pytest.raises(FatalFailure, match="file is not a database"):
        await run("SELECT n FROM orders", url="sqlite:///other.db", workdir=tmp_path)


@pytest.mark.parametrize(
    "kind", ["integer", "decimal", "timestamp", "date", "time", "interval", "bytes", "array", "boolean"]
)
@pytest.mark.parametrize(
    "value", ["hunter2 is no value", "1" * 10_000, {"a": 1}, [[1]], "9999999999-01-01", "P" + "9" * 400 + "D"]
)
async def test_a_value_of_another_type_is_fatal_and_not_shown(tmp_path: Path, kind: Any, value: Any) -> None:
    work = run("SELECT :v AS v", {"v": value}, workdir=tmp_path, types={"v": kind})
    [outcome] = await asyncio.gather(work, return_exceptions=True)
    if isinstance(outcome, dict):
        json.dumps(outcome)
    else:
        assert isinstance(outcome, FatalFailure)
        assert not [part for part in ("hunter", "1" * 100, "9" * 100, "9999999999") if part in str(outcome)]


# --- hostile servers ------------------------------------------------------------------------------------------


def _silent(connection: socket.socket) -> None:
    connection.recv(65536)
    with suppress(OSError):
        while connection.recv(65536):
            pass


def _dripping(connection: socket.socket) -> None:
    # The header of a long packet, for MariaDB; then a byte now and then.
    with suppress(OSError):
        connection.sendall(b"\xff\xff\x7f\x00")
        while True:
            connection.sendall(b"5")
            time.sleep(0.05)


def _endless(connection: socket.socket) -> None:
    with suppress(OSError):
        while True:
            connection.sendall(b"\xff\xff\xff\x00" + b"5" * 65536)


def _nonsense(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.sendall(bytes(range(256)) * 16)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)


def _closing(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def _serving(behaviour: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    taken.append(connection)
                    threading.Thread(target=behaviour, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        for connection in taken:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("scheme", ["postgresql", "mariadb"])
@pytest.mark.parametrize("behaviour", [_silent, _dripping, _endless, _nonsense, _closing])
async def test_a_server_that_is_none_costs_an_attempt_and_little_time(
    scheme: str, behaviour: Callable[[socket.socket], None]
) -> None:
    before = threading.active_count()
    rss = psutil.Process().memory_info().rss
    with _serving(behaviour) as port:
        url = f"{scheme}://me:hunter2@127.0.0.1:{port}/orders"
        started = time.monotonic()
        with pytest.raises(RetryableFailure) as failure:
            async with asyncio.timeout(30):
                await run("SELECT 1 AS n", url=url, connect_timeout="1s", concurrency=1)
        assert "hunter2" not in str(failure.value)
        assert time.monotonic() - started < 60  # twice: at the start, and by the task
    assert psutil.Process().memory_info().rss - rss < 100_000_000
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert threading.active_count() <= before
