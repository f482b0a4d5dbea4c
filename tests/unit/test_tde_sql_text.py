"""Reading the text of statements, and the settings they stand in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pydantic import ValidationError

from prokos.processes import check_manifests
from prokos.resources.sql_settings import SqlSettings
from prokos.resources.sql_text import DATABASES, SqlText

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("statement", "reads"),
    [
        ("SELECT 1", True),
        ("  -- why\n /* and */ select 1", True),
        ("WITH a AS (SELECT 1) SELECT * FROM a", True),
        ("VALUES (1)", True),
        ("SELECT 'DELETE' AS word, \"update\" FROM t -- INSERT", True),
        ("SELECT 1 FOR UPDATE", False),
        ("SELECT * INTO t FROM u", False),
        ("WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a", False),
        ("INSERT INTO t SELECT 1", False),
        ("EXPLAIN SELECT 1", False),
        ("selection", False),
    ],
)
def test_knows_statements_that_only_read(statement: str, reads: bool) -> None:
    assert {SqlText(statement, database).reads for database in DATABASES} == {reads}


@pytest.mark.parametrize(
    ("statement", "parameters", "lists"),
    [
        ("SELECT :a, :b, :a", ("a", "b"), ()),
        ("SELECT '12:30', x::int, a[1:2], \\:no", (), ()),
        ("SELECT ':a' \":b\" -- :c\n, :d /* :e\n:f */", ("d",), ()),
        ("SELECT 'it''s :a', :b", ("b",), ()),
        ("SELECT 1 WHERE a IN (:a) AND b in :b AND c NOT IN( :c )", ("a", "b", "c"), ("a", "b", "c")),
        ("SELECT 1 WHERE a IN (:a, :b) OR a IN (SELECT :c)", ("a", "b", "c"), ()),
    ],
)
def test_finds_parameters(statement: str, parameters: tuple[str, ...], lists: tuple[str, ...]) -> None:
    for database in DATABASES:
        found = SqlText(statement, database)
        assert found.parameters == parameters
        assert found.lists == set(lists)


@pytest.mark.parametrize(
    ("database", "statement", "parameters"),
    [
        ("postgresql", "SELECT $$ :a $$, $x$ :b $y$ :c $x$, :d, $1", ("d",)),
        ("postgresql", "SELECT E'\\':a', :b", ("b",)),
        ("postgresql", "SELECT `:a`", ("a",)),
        ("mysql", "SELECT `:a`, # :b\n :c", ("c",)),
        ("mysql", "SELECT $$ :a $$", ("a",)),
        ("sqlite", "SELECT [:a], `:b`, :c", ("c",)),
    ],
)
def test_each_database_quotes_in_its_way(database: Any, statement: str, parameters: tuple[str, ...]) -> None:
    assert SqlText(statement, database).parameters == parameters


def test_an_empty_list_fits_every_type_of_postgresql() -> None:
    text = SqlText("SELECT 1 WHERE a IN (:a) AND b NOT IN :b AND ':a' = 'x'", "postgresql")
    assert text.template() == "SELECT 1 WHERE a IN :a AND b NOT IN :b AND '\\:a' = 'x'"
    empty = frozenset({"a", "b"})
    assert text.template(empty) == "SELECT 1 WHERE a = ANY ('{}') AND b <> ALL ('{}') AND '\\:a' = 'x'"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("", "it is empty"),
        ("-- nothing", "it is empty"),
        ("COMMIT", "COMMIT is not allowed"),
        ("/* x */ begin", "BEGIN is not allowed"),
        ("SELECT 1; SELECT 2", "several statements; list them in spec.sql.statements"),
        ("SELECT 'a", "is not closed"),
        ("SELECT 1 /* a", "is not closed"),
        ("SELECT :a WHERE 1 IN (:a)", ":a is a list behind IN and a single value elsewhere"),
    ],
)
def test_refuses_what_a_task_must_not_consist_of(statement: str, message: str) -> None:
    for url in ("sqlite:///a.db", "postgresql://db/a", "mariadb://db/a"):
        with pytest.raises(ValidationError, match=message):
            SqlSettings(url=url, statement=statement)
    with pytest.raises(ValidationError, match=message):
        SqlSettings(url_secret="url", statement=statement)


def test_takes_one_statement_with_a_semicolon_and_a_body() -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END"
    for statement in ("SELECT 1;", "SELECT ';' ; -- ;\n", trigger):
        SqlSettings(url="sqlite:///a.db", statement=statement)


def test_refuses_a_backslash_before_a_quote_where_the_server_decides_what_it_means() -> None:
    statement = "SELECT 'it\\'s', :a"
    with pytest.raises(ValidationError, match="double the quote instead, or use a parameter"):
        SqlSettings(url="mariadb://db/a", statement=statement)
    SqlSettings(url="mariadb://db/a", statement="SELECT '\\\\ \\n', :a")


STATEMENTS = [{"name": "a", "statement": "SELECT :a"}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give either statement or statements"),
        ({"statement": "SELECT 1", "statements": STATEMENTS}, "give either statement or statements"),
        ({"statements": STATEMENTS, "batch": "list"}, "batch and expect belong to each of the statements"),
        ({"statements": STATEMENTS * 2}, "two statements are called 'a'"),
        ({"statements": STATEMENTS, "types": {"b": "text"}}, "types names 'b', which is no parameter"),
        ({"statement": "SELECT 1", "expect": {}}, "give either rows or atLeast"),
        ({"statement": "SELECT 1", "expect": {"rows": 1, "at_least": 1}}, "give either rows or atLeast"),
        ({"statement": "SELECT 1", "errors": [{"code": "X"}]}, "give sqlstate, errno, constraint or contains"),
        ({"statement": "SELECT 1", "read_only": True, "exactly_once": True}, "readOnly allows no exactlyOnce"),
        ({"statement": "SELECT 1", "read_only": True, "setup": ["x"]}, "readOnly allows no setup"),
        ({"statement": "SELECT 1", "exactly_once_table": "a; DROP"}, "String should match pattern"),
        ({"statement": "SELECT 1", "tls": {"mode": "require", "ca_secret": "ca"}}, "checks no certificate"),
        ({"statement": "SELECT 1", "tls": {"key_secret": "key"}}, "go together"),
    ],
)
def test_refuses_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SqlSettings(url_secret="url", **settings)


def test_names_every_secret() -> None:
    tls: Any = {"ca_secret": "ca", "certificate_secret": "certificate", "key_secret": "key"}
    settings = SqlSettings(url_secret="url", statement="SELECT 1", tls=tls)
    assert dict(settings.secret_references()) == {
        ("urlSecret",): "url",
        ("tls", "caSecret"): "ca",
        ("tls", "certificateSecret"): "certificate",
        ("tls", "keySecret"): "key",
    }


def test_an_undeclared_secret_is_found_offline(tmp_path: Path) -> None:
    sql = {"urlSecret": "url", "statement": "SELECT 1", "tls": {"caSecret": "ca"}}
    spec = {"type": "sql", "secrets": [{"name": "url", "env": "URL"}], "sql": sql}
    document = {"apiVersion": "prokos.io/v1alpha1", "kind": "TaskExecutor", "metadata": {"name": "x"}, "spec": spec}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(document))
    [problem] = [one for one in check_manifests([tmp_path]).problems if "secret" in str(one)]
    assert "spec.sql.tls.caSecret" in str(problem)
