"""What the errors of databases mean for a task."""

from __future__ import annotations

import struct
from typing import Any

import psycopg
import pymysql
import pytest

from prokos.resources.sql_settings import SqlError
from prokos.tde.sql.errors import business_rule, constraint, describe, details, hide_password, is_retryable


def maria(number: int, message: str, sqlstate: str = "HY000", kind: Any = pymysql.OperationalError) -> Any:
    return kind(number, message, sqlstate=sqlstate)


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (maria(1213, "Deadlock found"), True),
        (maria(1205, "Lock wait timeout exceeded"), True),
        (maria(2013, "Lost connection"), True),
        (maria(2003, "Can't connect"), True),
        (maria(1969, "max_statement_time exceeded"), True),
        (maria(1927, "Connection was killed"), True),
        (maria(1047, "WSREP has not yet prepared node"), True),
        (pymysql.InterfaceError(0, ""), True),
        (pymysql.InternalError("Packet sequence number wrong"), True),
        (pymysql.Error("Already closed"), True),
        (maria(1062, "Duplicate entry", "23000", pymysql.IntegrityError), False),
        (maria(1045, "Access denied", "28000"), False),
        (maria(1064, "syntax", "42000", pymysql.ProgrammingError), False),
        (maria(1792, "Cannot execute statement in a READ ONLY transaction", "25006"), False),
        (pymysql.ProgrammingError("nan can not be used with MySQL"), False),
        (psycopg.errors.SerializationFailure(), True),
        (psycopg.errors.UniqueViolation(), False),
        (psycopg.OperationalError("connection failed"), True),
        (psycopg.ProgrammingError("can't adapt"), False),
        (TimeoutError("another worker"), True),
        (struct.error("unpack requires 4 bytes"), True),
        (MemoryError(), True),
        (ValueError("a value"), False),
        (RecursionError("deep"), False),
        (OverflowError("int too big"), False),
    ],
)
def test_knows_what_may_pass(error: Exception, retryable: bool) -> None:
    assert is_retryable(error) is retryable


def test_a_former_primary_may_become_one_again_but_a_read_only_executor_does_not() -> None:
    error = psycopg.errors.ReadOnlySqlTransaction()
    assert is_retryable(error)
    assert not is_retryable(error, read_only=True)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Duplicate entry 'A-1-it's' for key 'orders.by_id'", "Duplicate entry ... for key 'orders.by_id'"),
        (
            "Incorrect integer value: 'x' for column `o`.`t`.`c` at row 1",
            "Incorrect integer value: ... for column `o`.`t`.`c` at row 1",
        ),
        ("Truncated incorrect DOUBLE value: 'x'", "Truncated incorrect DOUBLE value: ..."),
        ("... right syntax to use near 'x\n'y'' at line 1", "... right syntax to use near ... at line 1"),
        ("Invalid utf8mb4 character string: '\\xFF'", "Invalid utf8mb4 character string: ..."),
        ("Unknown column 'x' in 'field list'", "Unknown column 'x' in 'field list'"),
    ],
)
def test_leaves_out_what_mariadb_quotes(message: str, said: str) -> None:
    assert describe(maria(1062, message, "23000")) == f"{said} (SQLSTATE 23000, error 1062)"


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("Duplicate entry 'a' for key 'PRIMARY'", "PRIMARY"),
        ("Duplicate entry 'a' for key 'orders.by_id'", "by_id"),
        (
            "Cannot add or update a child row: ... (`o`.`lines`, CONSTRAINT `of_order` FOREIGN KEY (`id`) ...)",
            "of_order",
        ),
        ("CONSTRAINT `positive` failed for `orders`.`orders`", "positive"),
        ("Check constraint 'positive' is violated.", "positive"),
        ("Unknown column", None),
    ],
)
def test_knows_the_constraints_of_mariadb_and_mysql(message: str, name: str | None) -> None:
    assert constraint(maria(1, message)) == name
    assert details(maria(1, message)).get("constraint") == name


def test_the_first_rule_that_fits_in_all_decides() -> None:
    error = maria(1062, "Duplicate entry 'a' for key 'by_id'", "23000")
    rules = [
        SqlError(errno=1062, constraint="other", code="A"),
        SqlError(sqlstate="23000", contains="nothing", code="B"),
        SqlError(sqlstate="23000", errno=1062, constraint="by_id", contains="Duplicate", code="C"),
        SqlError(errno=1062, code="D"),
    ]
    found = business_rule(error, rules)
    assert found is not None
    assert found.code == "C"
    assert business_rule(error, rules[:2]) is None


def test_hides_a_password_as_it_is_and_as_the_url_writes_it() -> None:
    message = "hunter 2/ü hunter%202/%C3%BC hunter+2%2F%C3%BC hunter%202%2F%C3%BC"
    assert hide_password(message, "hunter 2/ü") == "<password> <password> <password> <password>"
    assert hide_password("a", None) == hide_password("a", "") == "a"
