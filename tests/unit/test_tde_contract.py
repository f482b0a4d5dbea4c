"""What an executor's author relies on: types of input and output, secrets, finding the class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from prokos.resources.secrets import Secret
from prokos.tde import Context, Environment, Executor, FatalFailure, Secrets
from prokos.tde.deployment import build_worker_deployment
from prokos.tde.secrets import MissingSecretError, resolve_secrets
from prokos.tde.types import executor_class
from unit.builders import executor


@dataclass
class Order:
    amount: Decimal
    card: str = "none"


class Receipt(BaseModel):
    number: int


class Payer(Executor[Order, Receipt]):
    async def execute(self, data: Order, context: Context) -> Receipt:
        return Receipt(number=1)


class LoyalPayer(Payer):
    """Inherits the types, too."""


class Anything(Executor[dict[str, Any], Any]):
    async def execute(self, data: dict[str, Any], context: Context) -> Any:
        return data


@pytest.mark.parametrize("kind", [Payer, LoyalPayer])
def test_an_input_becomes_the_executors_type(kind):
    assert kind.parse_input({"amount": "1.10"}) == Order(Decimal("1.10"))


def test_an_input_of_another_shape_is_refused():
    with pytest.raises(ValidationError, match="amount"):
        Payer.parse_input({"card": "x"})


@pytest.mark.parametrize("kind", [Payer, LoyalPayer])
def test_an_output_becomes_variables(kind):
    assert kind.dump_output(Receipt(number=1)) == {"number": 1}


@pytest.mark.parametrize("output", [1, "text", [1], None, True])
def test_an_output_that_is_no_object_becomes_the_variable_result(output):
    assert Anything.dump_output(output) == {"result": output}


@pytest.mark.parametrize("levels", [300, 900])
def test_an_output_that_is_nested_too_deeply_is_refused_in_words(levels):
    output: list[object] = []
    for _ in range(levels):
        output = [output]
    with pytest.raises(FatalFailure, match="nested too deeply"):
        Anything.dump_output(output)


@pytest.mark.parametrize("number", [math.inf, -math.inf])
def test_an_infinite_number_does_not_become_null(number):
    assert Anything.dump_output({"x": number}) == {"x": number}


def test_secrets_do_not_print():
    secrets = Secrets({"token": "s3cr3t"})
    environment = Environment("payer", Path(), 1, secrets)
    assert "s3cr3t" not in f"{secrets!r} {secrets} {environment!r}"


def test_a_secret_that_is_not_declared_is_named():
    with pytest.raises(FatalFailure, match=r"secret 'token' is not declared in spec\.secrets"):
        Secrets({})["token"]


def test_a_secret_within_another_does_not_leave_a_rest():
    secrets = Secrets({"short": "abc", "long": "abcdef"})
    assert secrets.redact("x abcdef abc y") == "x <secret long> <secret short> y"


def test_an_empty_secret_redacts_nothing():
    assert Secrets({"empty": ""}).redact("text") == "text"


def secret(**source: Any) -> Secret:
    return Secret.model_validate({"name": "token", **source})


def test_reads_secrets_from_where_they_are(tmp_path):
    (tmp_path / "token").write_text("mounted\n")
    (tmp_path / "file").write_text("filed\n")
    reference = {"secretKeyRef": {"name": "bank", "key": "token"}}
    assert resolve_secrets([secret(env="TOKEN")], {"TOKEN": "set"})["token"] == "set"
    assert resolve_secrets([secret(file=str(tmp_path / "file"))], {})["token"] == "filed"
    assert resolve_secrets([secret(**reference)], {}, tmp_path)["token"] == "mounted"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"env": "TOKEN"}, "secret 'token': environment variable TOKEN is not set"),
        ({"file": "/nowhere/token"}, "secret 'token': cannot read /nowhere/token: No such file"),
        ({"secretKeyRef": {"name": "bank", "key": "token"}}, "secret 'token': cannot read .*/token"),
    ],
)
def test_says_where_it_looked_for_a_missing_secret(source, message, tmp_path):
    with pytest.raises(MissingSecretError, match=message):
        resolve_secrets([secret(**source)], {}, tmp_path)


def test_finds_the_class_of_a_type():
    assert issubclass(executor_class("script"), Executor)


def test_names_the_types_there_are_when_one_is_unknown():
    with pytest.raises(LookupError, match=r"no installed package offers executor type 'ftp'; there are: .*script"):
        executor_class("ftp")


def revision(one, environment=None, hints="127.0.0.1:1"):
    return build_worker_deployment(one, environment or {}, hints).revision


def test_workers_are_replaced_when_what_they_need_changes():
    base = revision(executor())
    assert revision(executor()) == base
    assert revision(executor(timeout="1s")) != base
    assert revision(executor(), {"PROKOS_ENGINE_ADDRESS": "elsewhere:26500"}) != base
    assert revision(executor(), hints="127.0.0.1:2") != base


def test_the_values_of_secrets_are_no_part_of_a_deployment(monkeypatch):
    monkeypatch.setenv("BANK_TOKEN", "s3cr3t")
    deployment = build_worker_deployment(executor(secrets=[{"name": "token", "env": "BANK_TOKEN"}]), {}, None)
    assert deployment.secret_environment == ("BANK_TOKEN",)
    assert "s3cr3t" not in repr(deployment)
