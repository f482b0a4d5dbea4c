"""Checks of one TaskExecutor by itself, beyond what its model can say."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NoReturn

import jsonschema_rs

from prokos.resources.names import is_reserved_job_type
from prokos.resources.problems import did_you_mean, quote
from prokos.resources.python_settings import PythonSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from prokos.resources.executor import TaskExecutor
    from prokos.resources.loaded import Located
    from prokos.resources.problems import FieldPath, Problem


_ELSEWHERE = "it is elsewhere"


def check_executor(at: Located[TaskExecutor]) -> Iterator[Problem]:
    """Check an executor's schemas, script, secrets and rules."""
    spec = at.resource.spec
    yield from _schema(at, "inputSchema", spec.input_schema)
    yield from _schema(at, "outputSchema", spec.output_schema)
    yield from _script(at)
    yield from _secrets(at)
    for index, rule in enumerate(spec.accepts):
        if rule.job_type is not None and is_reserved_job_type(rule.job_type):
            path = ("spec", "accepts", index, "jobType")
            yield at.problem(path, f"job type {rule.job_type!r} is reserved for ProkOS; the PDO never serves it")


def _schema(at: Located[TaskExecutor], name: str, schema: dict[str, Any] | None) -> Iterator[Problem]:
    if schema is None:
        return
    path: FieldPath = ("spec", name)
    try:
        jsonschema_rs.validator_for(schema, retriever=_refuse)
    except jsonschema_rs.ValidationError as error:
        hint = "schemas are not fetched: put it in, under $defs" if _ELSEWHERE in error.message else ""
        yield at.problem((*path, *error.instance_path), f"not a valid JSON Schema: {error.message}", hint)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        yield at.problem(path, f"not a valid JSON Schema: {error}")


def _refuse(uri: str) -> NoReturn:
    """Stand in for the network, which a check must not touch."""
    raise LookupError(f"{uri}: {_ELSEWHERE}")


def _script(at: Located[TaskExecutor]) -> Iterator[Problem]:
    script = at.resource.spec.script
    if script is None or script.source is None or script.language != "python":
        return
    path: FieldPath = ("spec", "script", "source")
    if path not in at.positions:
        path = ("spec", "script", "configMapRef")  # the loader has put its text in
    first = at.blocks.get(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(script.source, "<script>", "exec", dont_inherit=True)
    except SyntaxError as error:
        text, number = error.msg, error.lineno or 1
        line = None if first is None else first + number - 1
        yield at.problem(path, f"the script does not compile: {text} (line {number} of the script)", line=line)
    except (ValueError, RecursionError, MemoryError) as error:
        yield at.problem(path, f"the script does not compile: {error or type(error).__name__}")


def _secrets(at: Located[TaskExecutor]) -> Iterator[Problem]:
    declared: set[str] = set()
    for index, secret in enumerate(at.resource.spec.secrets):
        if secret.name in declared:
            message = f"secret {secret.name!r} is declared twice"
            yield at.problem(("spec", "secrets", index, "name"), message, "rename or remove one")
        declared.add(secret.name)
    for path, name in _references(at.resource):
        if name not in declared:
            hint = did_you_mean(name, declared, otherwise="declare it in spec.secrets")
            yield at.problem(path, f"secret {quote(name)} is not declared", hint)
    for path, name in _given_to_containers(at.resource):
        message = f"secret {quote(name)} comes from a file, which is not given to a container"
        yield at.problem(path, message, "give secretKeyRef")


def _given_to_containers(executor: TaskExecutor) -> Iterator[tuple[FieldPath, str]]:
    """Secrets that a container is to get and cannot: the API server puts keys of Secrets into it, nobody files."""
    files = {secret.name for secret in executor.spec.secrets if secret.file is not None}
    if executor.spec.container is not None:
        for variable, name in executor.spec.container.secret_env.items():
            if name in files:
                yield ("spec", "container", "secretEnv", variable), name


def _references(executor: TaskExecutor) -> Iterator[tuple[FieldPath, str]]:
    """Every mention of a secret, with its path."""
    settings = executor.spec.settings
    if not isinstance(settings, PythonSettings):
        yield from ((("spec", executor.spec.type, *path), name) for path, name in settings.secret_references())
