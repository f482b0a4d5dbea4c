"""Where a script comes from, what it is called with, and what its interpreter has ready."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog
from pydantic import ValidationError
from structlog.testing import capture_logs

from prokos.processes import check_manifests
from prokos.resources import TaskExecutor
from prokos.resources.script_settings import ScriptSettings, size_in_bytes
from prokos.tde import Context, Environment, FatalFailure, RetryableFailure
from prokos.tde.script import executor as script
from prokos.tde.script.executor import ScriptExecutor
from prokos.tde.script.program import MAX_ARGUMENT, build_argument
from unit.script_bench import TASK, context, eventually, executing, marker, python, run, scratch_root, shell

__all__ = ["marker", "scratch_root"]

# Settings


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "give either a script"),
        ({"source": "x", "language": "shell", "command": ["x"]}, "give either a script"),
        ({"source": "x", "file": "/x", "language": "shell"}, "give either a script"),
        ({"source": "x"}, "language goes with source"),
        ({"command": ["x"], "language": "node"}, "language goes with source"),
        ({"file": "x.py", "language": "python"}, "must be an absolute path, such as /opt/scripts/x.py"),
        ({"command": ["x"], "preload": ["json"]}, "preload goes with language python"),
        ({"source": "x", "language": "python", "preload": ["a b"]}, "no name of a module"),
        ({"command": ["x"], "arguments": ["$()"]}, "name a field of the input"),
        ({"command": ["x\0"]}, "the character NUL"),
        ({"command": ["x"], "limits": {"memory": "much"}}, "limits.memory"),
        ({"command": ["x"], "limits": {"memory": "0"}}, "limits.memory"),
        ({"command": ["x"], "limits": {"openFiles": 1}}, "limits.openFiles"),
    ],
)
def test_refuses_settings_that_make_no_sense(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ScriptSettings.model_validate(settings)


def test_sizes_are_written_as_in_kubernetes() -> None:
    assert [size_in_bytes(size) for size in ("7", "2k", "3M", "1G", "2Ki", "512Mi", "1Gi")] == [
        *(7, 2_000, 3_000_000, 10**9),
        *(2048, 512 * 2**20, 2**30),
    ]


# Sources


async def test_a_python_file_finds_the_modules_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def add(a): return a + 1")
    program = tmp_path / "program.py"
    program.write_text("import beside, sys\ndef main(input):\n    return [beside.add(input['a']), *sys.argv, __file__]")
    output = await run({"a": 1}, language="python", file=str(program), arguments=["x"])
    assert output == {"result": [2, str(program), "x", str(program)]}


async def test_a_shell_file_runs_like_a_script(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text('printf \'{"a": "%s %s"}\' "$1" "$#" > $PROKOS_OUTPUT; false; exit 0')
    with pytest.raises(RetryableFailure, match="exited with code 1"):
        await run(language="shell", file=str(program), arguments=["a b", "c"])


def test_a_file_that_is_not_there_stops_the_worker_before_any_task(tmp_path: Path) -> None:
    settings = ScriptSettings(language="node", file=str(tmp_path / "none.js"))
    with pytest.raises(FatalFailure, match=r"spec.script.file: cannot read .*none.js: No such file"):
        ScriptExecutor(settings, Environment("x", tmp_path, 1))


async def test_a_pod_reads_the_script_where_the_config_map_is_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "SCRIPTS", tmp_path)
    settings = {"language": "python", "configMapRef": {"name": "scripts", "key": "double.py"}}
    with pytest.raises(FatalFailure, match=r"spec.script.configMapRef: cannot read .*double.py"):
        await run({"a": 2}, **settings)
    (tmp_path / "double.py").write_text("def main(input):\n    return input['a'] * 2")
    assert await run({"a": 2}, **settings) == {"result": 4}


MANIFEST = """
apiVersion: prokos.io/v1alpha1
kind: TaskExecutor
metadata: {name: double, namespace: NAMESPACE}
spec:
  type: script
  script:
    language: python
    configMapRef: {name: NAME, key: KEY}
"""
CONFIG_MAP = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: scripts}
data:
  double.py: |
    def main(input):
        return input["a"] * 2
  broken.py: "def"
"""


def written(directory: Path, name: str = "scripts", key: str = "double.py", namespace: str = "default") -> Path:
    text = MANIFEST.replace("NAMESPACE", namespace).replace("NAME", name).replace("KEY", key)
    (directory / "double.yaml").write_text(text + CONFIG_MAP)
    return directory


async def test_a_config_map_of_the_manifests_holds_the_script(tmp_path: Path) -> None:
    checked = check_manifests([written(tmp_path)])
    assert list(checked.problems) == []
    (executor,) = checked.loaded.only(TaskExecutor)
    assert executor.spec.script is not None
    assert await run({"a": 2}, **executor.spec.script.model_dump(exclude_unset=True)) == {"result": 4}
    assert TaskExecutor.model_validate_json(executor.model_dump_json(by_alias=True, exclude_none=True)) == executor


@pytest.mark.parametrize(
    ("reference", "field", "message"),
    [
        ({"name": "script"}, "spec.script.configMapRef.name", "no ConfigMap 'script' of namespace 'default'"),
        ({"namespace": "other"}, "spec.script.configMapRef.name", "no ConfigMap 'scripts' of namespace 'other'"),
        ({"key": "duble.py"}, "spec.script.configMapRef.key", "ConfigMap 'scripts' has no key 'duble.py'"),
        ({"key": "broken.py"}, "spec.script.configMapRef", "the script does not compile"),
    ],
)
def test_says_which_config_map_or_key_is_not_there(
    reference: dict[str, str], field: str, message: str, tmp_path: Path
) -> None:
    (problem,) = check_manifests([written(tmp_path, **reference)]).problems
    assert (problem.severity, problem.field) == ("error", field)
    assert message in problem.message
    assert problem.line is not None


def test_secret_files_must_be_declared(tmp_path: Path) -> None:
    spec = {"type": "script", "script": {"command": ["true"], "secretFiles": {"a": "unknown"}}}
    metadata = {"apiVersion": "prokos.io/v1alpha1", "kind": "TaskExecutor", "metadata": {"name": "x"}, "spec": spec}
    (tmp_path / "x.yaml").write_text(json.dumps(metadata))
    (problem,) = check_manifests([tmp_path]).problems
    assert (problem.field, "unknown" in problem.message) == ("spec.script.secretFiles.a", True)


# Arguments

HOSTILE = ["; touch /tmp/x", "$(id)", "`id`", "a\nb", "'", '"', "\\", "*", "--help", "${HOME}", "", " ", "ü\U0001f600"]


@pytest.mark.parametrize("value", HOSTILE)
async def test_an_argument_is_one_argument_whatever_the_input_holds(value: str) -> None:
    source = 'python3 -c "import json, sys; json.dump(sys.argv[1:], sys.stdout)" "$@" > $PROKOS_OUTPUT'
    output = await shell(source, {"v": value}, arguments=["--x=$(v)", "$(v)", "end"])
    assert output == {"result": [f"--x={value}", value, "end"]}


@pytest.mark.parametrize(
    ("argument", "built"),
    [
        ("plain", "plain"),
        ("$(a)", "1"),
        ("$(b.c)-$(b.c)", "x-x"),
        ("$(b.d)", "[1, null]"),
        ("$(flat.name)", "as it is"),
        ("$(yes)", "true"),
        ("$$(a)", "$(a)"),
        ("$a $(", "$a $("),
        ("$(reference)", "$(a)"),
    ],
)
def test_fields_of_the_input_stand_in_arguments(argument: str, built: str) -> None:
    data = {"a": 1, "b": {"c": "x", "d": [1, None]}, "flat.name": "as it is", "yes": True, "reference": "$(a)"}
    assert build_argument(argument, data) == built


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("$(c)", "needs the field 'c', which the input does not have"),
        ("$(a.b)", "needs the field 'a.b'"),
        ("--x=$(none)", "that '--x=\\$\\(none\\)' needs is null"),
        ("$(nul)", "the character NUL"),
        ("$(long)", "would have 200000 bytes; Linux takes 131071"),
    ],
)
def test_an_argument_that_cannot_be_is_fatal(argument: str, problem: str) -> None:
    with pytest.raises(FatalFailure, match=problem):
        build_argument(argument, {"a": 1, "none": None, "nul": "a\0b", "long": "x" * 200_000})


async def test_the_longest_argument_is_as_long_as_we_say() -> None:
    source = "import sys\noutput = len(sys.argv[1])"
    command = ["python3", "-c", "import os, sys; open(os.environ['PROKOS_OUTPUT'], 'w').write(str(len(sys.argv[1])))"]
    data = {"v": "x" * MAX_ARGUMENT}
    assert await python(source, data, arguments=["$(v)"]) == {"result": MAX_ARGUMENT}
    assert await run(data, command=command, arguments=["$(v)"]) == {"result": MAX_ARGUMENT}


async def test_too_many_arguments_are_fatal_and_say_so() -> None:
    with pytest.raises(FatalFailure, match=r"cannot run .*true: Argument list too long"):
        await run({"v": "x" * 100_000}, command=["true"], arguments=["$(v)"] * 70)


# A warm interpreter


async def test_preloaded_modules_are_there_and_tasks_do_not_share_what_they_change() -> None:
    source = """
        import sys
        warm = "wave" in sys.modules
        import wave
        seen = getattr(wave, "left", None)
        wave.left = "x"
        output = [warm, seen]
    """
    async with executing({"language": "python", "source": source, "preload": ["wave", "email.mime.text"]}) as executor:
        assert [await executor.execute({}, context()) for _ in range(2)] == [{"result": [True, None]}] * 2
    assert await python(source) == {"result": [False, None]}


async def test_a_module_that_cannot_be_preloaded_stops_the_worker_before_any_task() -> None:
    with pytest.raises(FatalFailure, match=r"spec\.script\.preload: cannot import no_such_module: ModuleNotFoundError"):
        await python("output = 1", preload=["no_such_module"])


async def test_a_small_script_costs_milliseconds() -> None:
    """Less processor time than an interpreter that starts, and then reads its input."""
    by_hand = cost_of_an_interpreter()
    async with executing({"language": "python", "source": "def main(input):\n    return input"}) as executor:
        await executor.execute({"a": 1}, context())
        started = spent(executor)
        for _ in range(30):
            await executor.execute({"a": 1}, context())
        assert (spent(executor) - started) / 30 < by_hand


def cost_of_an_interpreter() -> float:
    """Seconds of processor time that one takes which is started for a task."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(10):
        subprocess.run([sys.executable, "-c", "import json"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 10


def spent(executor: ScriptExecutor) -> float:
    """Seconds of processor time that the server and all it forked have used; who ended was waited for."""
    process = executor._sandbox.server._process
    assert process is not None
    return sum(psutil.Process(process.pid).cpu_times()[:4])


async def test_the_server_of_a_worker_is_small() -> None:
    async with executing({"language": "python", "source": "output = 1"}) as executor:
        await executor.execute({}, context())
        process = executor._sandbox.server._process
        assert process is not None
        assert psutil.Process(process.pid).memory_info().rss < 30_000_000


# Logs


async def test_output_is_logged_while_the_script_runs_with_the_tags_of_its_task(tmp_path: Path) -> None:
    go = tmp_path / "go"
    source = (
        f"import os, time\nprint('first')\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\nprint('last')"
    )
    with capture_logs() as logs:
        log = structlog.get_logger().bind(process="order", element="pay", job=102)
        async with executing({"language": "python", "source": source}) as executor:
            task = asyncio.create_task(executor.execute({}, Context("102", context().timeout, log, TASK)))
            await eventually(lambda: any(entry.get("line") == "first" for entry in logs))
            assert not task.done()
            go.touch()
            await task
    lines = [entry for entry in logs if entry["event"] == "script output"]
    assert [entry["line"] for entry in lines] == ["first", "last"]
    assert all((entry["process"], entry["element"], entry["job"]) == ("order", "pay", 102) for entry in lines)


async def test_the_log_and_the_result_have_limits_of_their_own() -> None:
    source = "print('x' * 5000)\noutput = 'y' * 5000"
    with capture_logs() as logs:
        output = await python(source, limits={"log": "1k"}, max_output_bytes=10_000)
    assert output == {"result": "y" * 5000}
    assert [entry["line"][:28] for entry in logs if "line" in entry] == [
        "... the output is cut here: ",
        "... 5000 more bytes of outpu",
    ]
