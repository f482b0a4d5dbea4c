"""The example `sql`: run as its README says, and its statements on PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.devsystem import DevSystem
from engine.sql_servers import PostgreSql
from prokos.processes import check_manifests
from prokos.resources import TaskExecutor
from prokos.tde import BusinessError, Environment, Secrets
from prokos.tde.sql.executor import SqlExecutor
from unit.sql_bench import context

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "examples" / "sql"
AT = "2026-03-01T12:00:00+01:00"


@pytest.fixture(scope="module")
def dev(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSystem]:
    with DevSystem(tmp_path_factory.mktemp("sql-example"), [EXAMPLE], engine=engine_address) as system:
        yield system


def transfer(dev: DevSystem, **changed: Any) -> dict[str, Any]:
    deposits = [{"name": "Ada", "cents": 5000}, {"name": "Bob", "cents": 100}]
    variables = {"deposits": deposits, "sender": "Ada", "receiver": "Bob", "cents": 1500, "at": AT, **changed}
    return dev.run_process("transfer", variables)


def test_the_example_has_no_errors_and_no_warnings() -> None:
    assert list(check_manifests([EXAMPLE]).problems) == []


def test_money_is_moved_or_not(dev: DevSystem) -> None:
    accounts = [{"name": "Ada", "cents": 3500, "transfers": 1}, {"name": "Bob", "cents": 1600, "transfers": 1}]
    assert transfer(dev)["accounts"] == accounts
    poor = {"errno": 275, "constraint": "never_below_zero"}
    assert transfer(dev, cents=1_000_000)["problem"] == poor
    assert transfer(dev, receiver="Eve")["problem"] == {"statement": "give", "rowCount": 0}
    # Four times was paid in; once was money moved before, and once now.
    accounts = transfer(dev)["accounts"]
    assert [account["cents"] for account in accounts] == [4 * 5000 - 2 * 1500, 4 * 100 + 2 * 1500]
    readme = (EXAMPLE / "README.md").read_text()
    assert json.dumps(poor) in readme


async def test_its_statements_are_those_of_postgresql(tmp_path: Path) -> None:
    with PostgreSql.running() as server:
        outputs: dict[str, Any] = {}
        tasks = {
            "deposits": {"deposits": [{"name": "Ada", "cents": 5000}, {"name": "Bob", "cents": 100}]},
            "transfers": {"sender": "Ada", "receiver": "Bob", "cents": 1500, "at": AT},
            "statements": {"names": ["Ada", "Bob"]},
        }
        for found in check_manifests([EXAMPLE]).loaded.only(TaskExecutor):
            assert found.spec.sql is not None
            settings = found.spec.sql.model_copy(update={"url": server.url})
            executor = SqlExecutor(settings, Environment(found.metadata.name, tmp_path, 4, Secrets({})))
            await executor.start()
            for _ in range(2):  # the second time is a repetition
                outputs[found.metadata.name] = await executor.execute(tasks[found.metadata.name], context())
            if found.metadata.name == "transfers":
                with pytest.raises(BusinessError, match="NO_MONEY: There is not so much in the account"):
                    await executor.execute({**tasks["transfers"], "cents": 10**9}, context("another"))
            await executor.close()
        assert [row["cents"] for row in outputs["statements"]["rows"]] == [3500, 1600]
