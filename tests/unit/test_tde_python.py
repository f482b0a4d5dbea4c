"""The `python` executor: classes of the user's."""

from __future__ import annotations

import sys
import textwrap
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from prokos.resources.python_settings import PythonSettings
from prokos.tde import BusinessError, Context, Environment, FatalFailure
from prokos.tde.python import PythonExecutor, load_class

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE = """
    from datetime import date
    from pydantic import BaseModel
    from prokos.tde import BusinessError, Context, Executor

    class Order(BaseModel):
        id: str
        amount: float

    class Receipt(BaseModel):
        order: str
        day: date

    class Pay(Executor[Order, Receipt]):
        started = closed = False

        async def start(self):
            self.started = True

        async def close(self):
            self.closed = True

        async def execute(self, data: Order, context: Context) -> Receipt:
            assert self.started
            if data.amount > self.settings["limit"]:
                raise BusinessError("DECLINED", "no cover", {"limit": self.settings["limit"]})
            return Receipt(order=data.id, day=date(2026, 3, 1))

    class Wrong(Executor[dict, dict]):
        async def execute(self, data, context):
            return {"x": object()}

    class Blocking(Executor[dict, dict]):
        def execute(self, data, context):
            return {}

    class Unfinished(Executor[dict, dict]):
        pass

    class Other:
        pass
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the module `orders`, which the interpreter forgets afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "orders.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "code" / "needy.py").write_text("import no_such_package_anywhere")
    (tmp_path / "code" / "broken.py").write_text("1 / 0")
    yield tmp_path
    for name in ("orders", "needy", "broken"):
        sys.modules.pop(name, None)


def load(project: Path, executor: str, *, path: str | None = "code", **settings: Any) -> PythonExecutor:
    environment = Environment("pay", project, 1)
    return PythonExecutor(PythonSettings(executor=executor, path=path, settings=settings), environment)


def context() -> Context:
    return Context("1-1", timedelta(seconds=5), structlog.get_logger())


async def test_runs_the_users_class_with_its_types_and_settings(project: Path) -> None:
    executor = load(project, "orders:Pay", limit=100)
    await executor.start()
    assert await executor.execute({"id": "A-1", "amount": "12.5"}, context()) == {"order": "A-1", "day": "2026-03-01"}
    await executor.close()
    assert executor._inner.closed  # type: ignore[attr-defined]


async def test_passes_business_errors_on(project: Path) -> None:
    executor = load(project, "orders:Pay", limit=10)
    await executor.start()
    with pytest.raises(BusinessError, match="DECLINED: no cover") as error:
        await executor.execute({"id": "A-1", "amount": 12.5}, context())
    assert error.value.variables == {"limit": 10}


async def test_an_input_that_does_not_fit_is_fatal_and_named(project: Path) -> None:
    executor = load(project, "orders:Pay", limit=10)
    with pytest.raises(
        FatalFailure, match=r"does not fit orders:Pay: id: Field required; amount: .*valid number"
    ) as no:
        await executor.execute({"amount": "4111-1111"}, context())
    assert "4111" not in str(no.value)


async def test_an_output_that_is_not_json_is_fatal(project: Path) -> None:
    with pytest.raises(FatalFailure, match="output of orders:Wrong cannot be written as JSON"):
        await load(project, "orders:Wrong").execute({}, context())


@pytest.mark.parametrize(
    ("executor", "path", "message"),
    [
        ("nowhere:Pay", "code", "there is no module 'nowhere' in code"),
        ("nowhere.at.all:Pay", None, r"there is no module 'nowhere' in the installed packages"),
        ("orders:Pay", "elsewhere", r"spec\.python\.path: there is no directory .*elsewhere"),
        ("orders:Missing", "code", "module 'orders' has no 'Missing'"),
        ("orders:Other", "code", "is not a subclass of"),
        ("orders:Order", "code", "is not a subclass of"),
        ("orders:Blocking", "code", "needs a method `async def execute"),
        ("orders:Unfinished", "code", "needs a method `async def execute"),
        ("needy:Pay", "code", "it imports 'no_such_package_anywhere', which is not installed"),
    ],
)
def test_says_what_is_wrong_with_the_name(project: Path, executor: str, path: str | None, message: str) -> None:
    with pytest.raises(LookupError, match=message):
        load_class(PythonSettings(executor=executor, path=path), project)


def test_an_error_of_the_users_module_is_shown_as_it_is(project: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        load(project, "broken:Pay")


def test_adds_the_path_once(project: Path) -> None:
    for _ in range(3):
        load(project, "orders:Pay")
    assert sys.path.count(str(project / "code")) == 1
