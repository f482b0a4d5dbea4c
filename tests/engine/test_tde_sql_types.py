"""What becomes of every type of PostgreSQL and MariaDB on its way into JSON, and back."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from engine.sql_servers import MariaDb, PostgreSql
from prokos.tde import FatalFailure
from unit.sql_bench import run

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgreSql]:
    with PostgreSql.running() as started:
        yield started


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDb]:
    with MariaDb.running() as started:
        yield started


async def value(url: str, expression: str, data: dict[str, Any] | None = None, **settings: Any) -> Any:
    output = await run(f"SELECT {expression} AS value", data, url=url, **settings)
    json.dumps(output, allow_nan=False)
    return output["rows"][0]["value"]


POSTGRESQL: list[tuple[str, Any]] = [
    ("9007199254740993::bigint", 9007199254740993),
    ("(-9223372036854775808)::bigint", -(2**63)),
    ("12345678901234567890::numeric", "12345678901234567890"),
    ("12.50::numeric(10, 2)", 12.5),
    ("0.12345678901234567890::numeric", "0.12345678901234567890"),
    ("'NaN'::numeric", "NaN"),
    ("0.1::real", 0.1),
    ("0.1::float8 + 0.2::float8", 0.30000000000000004),
    ("'-Infinity'::float8", "-inf"),
    ("true", True),
    ("NULL", None),
    ("'\\x00ff'::bytea", "AP8="),
    ("'2026-03-01 12:00:00.25+02'::timestamptz", "2026-03-01T10:00:00.250000+00:00"),
    ("'2026-03-01 12:00:00'::timestamp", "2026-03-01T12:00:00"),
    ("'infinity'::timestamptz", "infinity"),
    ("'0044-03-15 BC'::date", "0044-03-15 BC"),
    ("'12000-01-01 00:00'::timestamp", "12000-01-01 00:00:00"),
    ("'2026-03-01'::date", "2026-03-01"),
    ("'24:00'::time", "24:00:00"),
    ("'12:30:15.5+02'::timetz", "12:30:15.500000+02:00"),
    ("interval '1 day 2 hours 0.5 seconds'", "P1DT7200.5S"),
    ("interval '-90 seconds'", "-PT90S"),
    ("interval '1 year 2 months 3 days'", "P1Y2M3D"),
    ("ARRAY[[1, 2], [3, NULL]]", [[1, 2], [3, None]]),
    ("ARRAY[1.10, 2.5]::numeric[]", [1.1, 2.5]),
    ("ARRAY['2026-03-01']::date[]", ["2026-03-01"]),
    ("ARRAY[interval '1 month']", ["P1M"]),
    ("""'{"a": [1.5, 12345678901234567890, 0.12345678901234567890]}'::jsonb""",
     {"a": [1.5, "12345678901234567890", "0.12345678901234567890"]}),
    ("'null'::jsonb", None),
    ("'00000000-0000-0000-0000-000000000001'::uuid", "00000000-0000-0000-0000-000000000001"),
    ("'10.0.0.1/24'::inet", "10.0.0.1/24"),
    ("'10.0.0.1'::inet", "10.0.0.1"),
    ("'fe80::/10'::cidr", "fe80::/10"),
    ("'08:00:2b:01:02:03'::macaddr", "08:00:2b:01:02:03"),
    ("'[1,5)'::int4range", "[1,5)"),
    ("ROW(1, 'a')", ["1", "a"]),
    ("B'101'", "101"),
    ("point(1, 2)", "(1,2)"),
    ("'12.34'::money", "$12.34"),
    ("'a b'::tsvector", "'a' 'b'"),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "expected"), POSTGRESQL)
async def test_values_of_postgresql_lose_nothing(postgres: PostgreSql, expression: str, expected: Any) -> None:
    # The server's own styles of dates and intervals do not matter.
    url = (
        f"{postgres.url}&options=-c timezone=UTC -c datestyle=German -c intervalstyle=postgres_verbose -c lc_monetary=C"
    )
    found = await value(url, expression)
    assert (found, type(found)) == (expected, type(expected))


MARIADB: list[tuple[str, Any]] = [
    ("9007199254740993", 9007199254740993),
    ("CAST(18446744073709551615 AS UNSIGNED)", "18446744073709551615"),
    ("CAST('12345678901234567.89' AS DECIMAL(30, 2))", "12345678901234567.89"),
    ("CAST(12.5 AS DECIMAL(10, 2))", 12.5),
    ("CAST(0.1 AS FLOAT)", 0.1),
    ("CAST(0.1 AS DOUBLE) + CAST(0.2 AS DOUBLE)", 0.30000000000000004),
    ("true", 1),
    ("NULL", None),
    ("X'00ff'", "AP8="),
    ("CAST('2026-03-01 12:00:00.25' AS DATETIME(3))", "2026-03-01T12:00:00.250000"),
    ("DATE '2026-03-01'", "2026-03-01"),
    ("TIME '12:30:15'", "12:30:15"),
    ("CAST('-838:59:59' AS TIME)", "-838:59:59"),
    ("CAST('12:30:15.5' AS TIME(1))", "12:30:15.5"),
    ("b'101'", "BQ=="),
    ("CONVERT('ü🎈' USING latin1)", "ü?"),
    ("CONVERT('ü🎈' USING utf8mb4)", "ü🎈"),
    ("CAST('10.0.0.1' AS INET4)", "10.0.0.1"),
    ("CAST('00000000-0000-0000-0000-000000000001' AS UUID)", "00000000-0000-0000-0000-000000000001"),
    ("""JSON_EXTRACT('{"a": [1]}', '$')""", '{"a": [1]}'),
]


@pytest.mark.parametrize(("expression", "expected"), MARIADB)
async def test_values_of_mariadb_lose_nothing(mariadb: MariaDb, expression: str, expected: Any) -> None:
    found = await value(mariadb.url, expression)
    assert (found, type(found)) == (expected, type(expected))


async def test_columns_of_mariadb_lose_nothing(mariadb: MariaDb) -> None:
    mariadb.query("DROP TABLE IF EXISTS typed")
    mariadb.query(
        "CREATE TABLE typed (flags BIT(10), at TIMESTAMP(3) NULL, year YEAR, kind ENUM('a', 'b'), many SET('x', 'y'),"
        " doc JSON, blobs VARBINARY(9), wide BIGINT UNSIGNED, yes BOOLEAN, zero DATETIME, place POINT)"
    )
    mariadb.query(
        "SET STATEMENT time_zone = '+02:00', sql_mode = '' FOR INSERT INTO typed VALUES (b'1000000001',"
        """ '2026-03-01 12:00:00.25', 2026, 'b', 'x,y', '{"a": 0.12345678901234567890}', X'ff00', """
        "18446744073709551615, 1, '0000-00-00', NULL)"
    )
    columns = {"doc": "json", "yes": "boolean", "wide": "text"}
    output = await run("SELECT * FROM typed", url=mariadb.url, columns=columns)
    assert output["rows"] == [
        {
            "flags": 513,
            "at": "2026-03-01T10:00:00.250000+00:00",
            "year": 2026,
            "kind": "b",
            "many": "x,y",
            "doc": {"a": "0.12345678901234567890"},
            "blobs": "/wA=",
            "wide": "18446744073709551615",
            "yes": True,
            "zero": "0000-00-00 00:00:00",
            "place": None,
        }
    ]
    with pytest.raises(FatalFailure, match="a value of the column 'kind' is not of its type: Expecting value"):
        await run("SELECT kind FROM typed", url=mariadb.url, columns={"kind": "json"})


async def test_decimals_are_text_if_asked_for(postgres: PostgreSql, mariadb: MariaDb) -> None:
    for url in (postgres.url, mariadb.url):
        assert await value(url, "CAST(12.50 AS decimal(10, 2))", decimals="text") == "12.50"
        assert await value(url, "CAST(12.50 AS decimal(10, 2))", columns={"value": "text"}) == "12.50"
        assert await value(url, "5", columns={"value": "text"}) == "5"


EVERY_BYTE = base64.b64encode(bytes(range(256))).decode()
ROUND_TRIPS: list[tuple[str, str, Any, dict[str, str]]] = [
    ("text", "varchar(20)", 5, {"both": "5"}),
    ("integer", "bigint", "9007199254740993", {"both": 9007199254740993}),  # type: ignore[dict-item]
    ("decimal", "numeric(40, 20)", "12345678901234567890.12345678901234567890",
     {"both": "12345678901234567890.12345678901234567890"}),
    ("timestamp", "timestamp", "2026-03-01T12:00:00.25+02:00[Europe/Berlin]",
     {"postgresql": "2026-03-01T10:00:00.250000+00:00", "mysql": "2026-03-01T10:00:00.250000+00:00"}),
    ("date", "date", "2026-03-01", {"both": "2026-03-01"}),
    ("time", "time", "12:30:15", {"both": "12:30:15"}),
    ("interval", "interval", "-P1DT2H", {"postgresql": "-P1DT7200S", "mysql": "-26:00:00"}),
    ("bytes", "bytea", EVERY_BYTE, {"both": EVERY_BYTE}),
    ("json", "jsonb", {"a": ["ü", None, "'; DROP"]}, {"both": {"a": ["ü", None, "'; DROP"]}}),  # type: ignore[dict-item]
    ("json", "jsonb", "just text", {"both": "just text"}),
    ("boolean", "boolean", "true", {"postgresql": True, "mysql": 1}),  # type: ignore[dict-item]
    ("text", "varchar(20)", None, {"both": None}),  # type: ignore[dict-item]
]  # fmt: skip
MARIADB_COLUMNS = {
    "timestamp": "timestamp(6)", "interval": "time", "bytea": "blob", "jsonb": "json", "varchar(20)": "varchar(20)",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "column", "given", "expected"), ROUND_TRIPS)
async def test_typed_parameters_arrive(
    postgres: PostgreSql, mariadb: MariaDb, kind: str, column: str, given: Any, expected: dict[str, Any]
) -> None:
    for server in (postgres, mariadb):
        types = {"timestamp": "timestamptz"} if server is postgres else MARIADB_COLUMNS
        server.query("DROP TABLE IF EXISTS kept")
        server.query(f"CREATE TABLE kept (value {types.get(column, column)})")
        url = f"{server.url}&options=-c timezone=UTC" if server is postgres else server.url
        insert = "INSERT INTO kept (value) VALUES (:given)"
        assert await run(insert, {"given": given}, url=url, types={"given": kind}) == {"rowCount": 1}
        columns = {"value": "json"} if kind == "json" else {}
        output = await run("SELECT value FROM kept", url=url, columns=columns)
        assert output["rows"] == [{"value": expected.get(server.name, expected.get("both"))}]


async def test_arrays_arrive(postgres: PostgreSql, mariadb: MariaDb) -> None:
    types = {"ids": "array"}
    assert await value(postgres.url, "CAST(:ids AS uuid[])", {"ids": []}, types=types) == []
    assert await value(postgres.url, "2 = ANY(:ids)", {"ids": [1, 2]}, types=types) is True
    assert await value(postgres.url, "CAST(:ids AS text[])", {"ids": ["{a,b}", 'c"', None]}, types=types) == [
        "{a,b}", 'c"', None,
    ]  # fmt: skip
    with pytest.raises(FatalFailure, match=r"input 'ids' is not of the type 'array' .*only PostgreSQL has arrays"):
        await value(mariadb.url, ":ids", {"ids": [1]}, types=types)


async def test_what_does_not_fit_is_refused_and_not_cut(mariadb: MariaDb) -> None:
    mariadb.query("DROP TABLE IF EXISTS narrow")
    mariadb.query("CREATE TABLE narrow (word varchar(3), n tinyint)")
    mariadb.query("SET GLOBAL sql_mode = ''")  # a server that cuts
    try:
        for statement in ("INSERT INTO narrow (word) VALUES (:v)", "INSERT INTO narrow (n) VALUES (:v)"):
            for given in ("abcdefgh", "12345"):
                with pytest.raises(FatalFailure) as failure:
                    await run(statement, {"v": given}, url=mariadb.url)
                assert given not in str(failure.value)
    finally:
        mariadb.query("SET GLOBAL sql_mode = DEFAULT")
    assert mariadb.query("SELECT * FROM narrow") == []
