from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import structlog
from prokos.logs import configure_logging

configure_logging()

def ask(api_key):
    raise ValueError("no answer")

try:
    ask("s3cr3t" + "-key")
except ValueError:
    structlog.get_logger("test").exception("asking failed", element="Pay")
structlog.get_logger("test").debug("details")
"""


CLEARING = """
import structlog
from prokos.logs import configure_logging
from prokos.tde import Secrets
from prokos.tde.redaction import Redactor

secrets = Secrets({"key": 's3cr3t "quoted" \\\\ key'})
configure_logging(clear=Redactor(secrets, secrets.names).text)
log = structlog.get_logger("test").bind(bound=secrets["key"])
log.info("it is " + secrets["key"], deep={"in": [secrets["key"]]})
try:
    raise ValueError(f"no {secrets['key']!r}")
except ValueError:
    log.exception("broken")
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_secrets_are_cleared_from_whatever_is_logged(form):
    environment = {"PROKOS_LOG_FORMAT": form}
    done = subprocess.run([sys.executable, "-c", CLEARING], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.count("<secret key>") >= 5
    assert "quoted" not in done.stderr


def logged(**environment: str) -> str:
    """What a process logs that fails with a secret at hand."""
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("form", ["json", "text"])
def test_tracebacks_do_not_show_the_values_of_variables(form):
    text = logged(PROKOS_LOG_FORMAT=form)
    assert "ValueError" in text
    assert "no answer" in text
    assert "s3cr3t" not in text.replace('"s3cr3t" + "-key"', "")


def test_machines_get_one_json_object_per_line():
    (line,) = logged(PROKOS_LOG_FORMAT="json").splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["element"], entry["level"]) == ("asking failed", "Pay", "error")
    assert entry["exception"][0]["exc_value"] == "no answer"


def test_the_level_decides_what_is_logged():
    assert "details" not in logged()
    assert "details" in logged(PROKOS_LOG_LEVEL="debug")


def test_an_unknown_level_is_info():
    assert "asking failed" in logged(PROKOS_LOG_LEVEL="loud")


def test_work_goes_on_when_its_log_cannot_be_written():
    code = CODE + "print('went on')"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert done.stdout == "went on\n"
