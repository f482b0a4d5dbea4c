"""A process calls TDEs itself, by call activities: what comes back to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.devsystem import DevSystem
from engine.samples import calling, python_executor, write
from prokos.tde.lease import TDE_LEASE

SOURCES = {
    "double": "def main(input):\n    return {'doubled': input['n'] * 2}\n",
    "reject": "def main(input):\n    raise BusinessError('REJECTED', 'too much', {'reason': 'too much'})\n",
    "flaky": """\
        import pathlib, time
        def main(input):
            with pathlib.Path(input["marker"]).open("a") as marker:
                print(time.time(), file=marker)
            if input["failures"] >= len(pathlib.Path(input["marker"]).read_text().split()):
                raise RetryableFailure("not yet")
            return {"seen": sorted(input)}
        """,
}
WAIT = 1.0
"""Seconds between attempts."""


@pytest.fixture(scope="module")
def dev(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSystem]:
    directory = tmp_path_factory.mktemp("calls")
    backoff = {"initial": f"{WAIT:g}s", "multiplier": 1, "jitter": 0}
    resources = [python_executor(f"call-{name}", source, backoff=backoff) for name, source in SOURCES.items()]
    mapped = python_executor("call-mapped", "def main(input):\n    return {'sum': input['a'] + 1}\n")
    mapped["spec"]["inputs"] = [{"source": "=n", "target": "a"}]
    mapped["spec"]["outputs"] = [{"source": "=sum * 10", "target": "result"}]
    processes = {f"calls-{name}": calling(f"calls-{name}", f"call-{name}") for name in [*SOURCES, "mapped"]}
    manifests = write(directory / "manifests", processes=processes, resources=[*resources, mapped])
    with DevSystem(directory, [manifests], engine=engine_address) as system:
        yield system


def test_the_result_becomes_the_callers_variables(dev: DevSystem) -> None:
    assert dev.run_process("calls-double", {"n": 4}) == {"n": 4, "doubled": 8}


def test_mappings_are_evaluated_by_the_engine(dev: DevSystem) -> None:
    assert dev.run_process("calls-mapped", {"n": 4})["result"] == 50


def test_a_business_error_is_caught_at_the_call_activity(dev: DevSystem) -> None:
    assert dev.run_process("calls-reject", {})["caught"] == "too much"


def test_a_failed_attempt_is_followed_by_another_after_the_wait(dev: DevSystem, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    variables = {"marker": str(marker), "failures": 2}
    ended = dev.run_process("calls-flaky", variables)
    begun = [float(line) for line in marker.read_text().split()]
    # Not a lease later: the worker takes the next attempt although it is still reporting the one before.
    assert all(WAIT <= later - earlier < TDE_LEASE for earlier, later in itertools.pairwise(begun)), begun
    # Of the wait neither executor nor caller sees anything.
    assert ended == {**variables, "seen": ["failures", "marker"]}
