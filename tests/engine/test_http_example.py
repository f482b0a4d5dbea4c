"""The example `http`, run as its README says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.devsystem import PROKOS, DevSystem
from prokos.processes import check_manifests

EXAMPLE = Path(__file__).parents[2] / "examples" / "http"
SECRETS = {"LIBRARY_CLIENT_SECRET": "PLANTED library secret", "CALLBACK_SECRET": "PLANTED-callback-secret"}


@pytest.fixture(scope="module")
def dev(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSystem]:
    service = [sys.executable, str(EXAMPLE / "print_service.py"), "--seconds", "1"]
    with subprocess.Popen(service, env={**os.environ, **SECRETS}, stdout=subprocess.PIPE, text=True) as printing:
        try:
            assert printing.stdout is not None
            assert "listens on" in printing.stdout.readline()
            directory = tmp_path_factory.mktemp("http-example")
            with DevSystem(directory, [EXAMPLE], engine=engine_address, environment=SECRETS) as system:
                argv = [*PROKOS, "receive", "--listen", "127.0.0.1:18183", "--secret-env", "CALLBACK_SECRET"]
                with subprocess.Popen(argv, env=system.environment, stderr=subprocess.PIPE, text=True) as receiver:
                    assert receiver.stderr is not None
                    assert "takes callbacks" in receiver.stderr.readline()
                    yield system
                    receiver.terminate()
        finally:
            printing.terminate()


def test_the_example_has_no_errors_and_no_warnings() -> None:
    assert list(check_manifests([EXAMPLE]).problems) == []


def test_a_book_is_found_and_printed(dev: DevSystem) -> None:
    variables = dev.run_process("print-book", {"book": "On Being Called Back"})
    assert (variables["isbn"], variables["pages"]) == ("978-3", 64)


def test_a_book_that_cannot_be_printed_is_a_business_error(dev: DevSystem) -> None:
    variables = dev.run_process("print-book", {"book": "A Book That Is Too Long"})
    assert variables["problem"] == "a book of 99000 pages cannot be bound"


def test_its_secrets_come_out_nowhere(dev: DevSystem) -> None:
    logs = [file.read_text(errors="replace") for file in (dev.state / "logs").iterdir() if file.is_file()]
    for text in (*logs, dev.output, str(dev.tasks())):
        assert not any(secret in text for secret in SECRETS.values())
