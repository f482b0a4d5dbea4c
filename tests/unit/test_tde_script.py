"""The `script` executor with real processes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from prokos.resources.script_settings import ScriptSettings
from prokos.tde import BusinessError, FatalFailure, RetryableFailure
from unit.script_bench import (
    TASK,
    context,
    executing,
    marker,
    python,
    run,
    scratch_root,
    shell,
)

__all__ = ["marker", "scratch_root"]

# Python scripts


async def test_a_python_script_returns_from_main() -> None:
    assert await python("def main(input):\n    return {'sum': input['a'] + 1}", {"a": 41}) == {"sum": 42}


async def test_a_python_script_may_assign_output() -> None:
    assert await python("output = {'sum': input['a'] + 1}", {"a": 41}) == {"sum": 42}


async def test_main_may_be_async_and_need_no_input() -> None:
    assert await python("async def main():\n    return {'a': 1}") == {"a": 1}


async def test_an_ordinary_script_runs_main_once() -> None:
    source = """
        import sys, json
        ran = []
        def main(input):
            ran.append(1)
            return {"ran": len(ran)}
        if __name__ == "__main__":
            main(json.load(sys.stdin))
    """
    assert await python(source) == {"ran": 1}


async def test_a_script_without_main_is_the_main_module() -> None:
    assert await python("if __name__ == '__main__':\n    output = 'yes'") == {"result": "yes"}


async def test_a_result_that_is_no_object_becomes_result() -> None:
    assert await python("output = [1, 2]") == {"result": [1, 2]}


async def test_no_result_is_an_empty_output() -> None:
    assert await python("def main(input): pass") == {}


async def test_a_python_script_can_import_what_the_worker_has_installed() -> None:
    assert await python("import pydantic\noutput = pydantic.__name__") == {"result": "pydantic"}


async def test_a_python_script_can_use_several_processes() -> None:
    source = """
        from multiprocessing import Pool
        def double(x):
            return 2 * x
        def main(input):
            with Pool(2) as pool:
                return pool.map(double, [1, 2])
    """
    assert await python(source) == {"result": [2, 4]}


async def test_a_python_script_raises_a_business_error() -> None:
    with pytest.raises(BusinessError) as error:
        await python("def main(input):\n    raise BusinessError('DECLINED', 'no cover', {'limit': 10})")
    assert (error.value.code, error.value.message, error.value.variables) == ("DECLINED", "no cover", {"limit": 10})


async def test_a_python_script_raises_failures() -> None:
    with pytest.raises(RetryableFailure, match=r"^busy$") as retry:
        await python("raise RetryableFailure('busy', retry_after_seconds=90)")
    assert retry.value.retry_after == timedelta(seconds=90)
    with pytest.raises(FatalFailure, match=r"^wrong account$"):
        await python("raise FatalFailure('wrong account')")


async def test_an_exception_is_tried_again_with_the_scripts_own_traceback() -> None:
    with pytest.raises(RetryableFailure) as failure:
        await python("def main(input):\n    return 1 / input['n']", {"n": 0})
    message = str(failure.value)
    assert message.startswith("the script exited with code 1: Traceback")
    assert "return 1 / input['n']" in message
    assert message.endswith("ZeroDivisionError: division by zero")
    assert "tde/script" not in message


async def test_a_syntax_error_is_fatal() -> None:
    with pytest.raises(FatalFailure, match="SyntaxError"):
        await python("def main(input:\n    pass")


async def test_a_result_that_is_not_json_is_fatal() -> None:
    with pytest.raises(FatalFailure, match=r"result cannot be written as JSON: .*datetime"):
        await python("import datetime\ndef main(input):\n    return {'now': datetime.datetime.now()}")
    with pytest.raises(FatalFailure, match="result cannot be written as JSON"):
        await python("output = float('nan')")


async def test_exit_codes_of_a_python_script_count() -> None:
    assert await python("import sys\noutput = 1\nsys.exit(0)") == {"result": 1}
    with pytest.raises(RetryableFailure, match="exited with code 3"):
        await python("import sys\nsys.exit(3)")
    with pytest.raises(RetryableFailure, match="exited with code 1: that failed"):
        await python("import sys\nsys.exit('that failed')")


async def test_scripts_do_not_see_each_other() -> None:
    source = "import os, sys\nseen = hasattr(sys, 'left')\nsys.left = os.environ['LEFT'] = 'x'\noutput = seen"
    async with executing({"language": "python", "source": source}) as executor:
        assert [await executor.execute({}, context()) for _ in range(3)] == [{"result": False}] * 3


# Shell scripts and commands


async def test_a_shell_script_reads_and_writes_json() -> None:
    assert await shell('cat > "$PROKOS_OUTPUT"', {"a": "ü"}) == {"a": "ü"}
    assert await shell('cp "$PROKOS_INPUT" "$PROKOS_OUTPUT"', {"a": 1}) == {"a": 1}


async def test_a_shell_script_stops_at_the_first_failing_command() -> None:
    with pytest.raises(RetryableFailure, match="exited with code 1"):
        await shell("false\necho '{}' > $PROKOS_OUTPUT")


async def test_a_command_runs_in_the_working_directory(tmp_path: Path) -> None:
    tool = tmp_path / "tool.sh"
    tool.write_text('#!/bin/sh\nprintf \'{"arg": "%s", "cwd": "%s"}\' "$1" "$PWD" > "$PROKOS_OUTPUT"\n')
    tool.chmod(0o755)
    output = await run(command=["./tool.sh", "a b; rm -rf $HOME"], workdir=tmp_path)
    assert output == {"arg": "a b; rm -rf $HOME", "cwd": str(tmp_path)}


async def test_a_program_that_does_not_exist_is_fatal() -> None:
    with pytest.raises(FatalFailure, match="cannot run no-such-program: no such program"):
        await run(command=["no-such-program"])


async def test_an_empty_output_file_is_an_empty_result() -> None:
    assert await shell(': > "$PROKOS_OUTPUT"') == {}


async def test_an_output_that_is_not_json_is_fatal_and_says_where() -> None:
    with pytest.raises(FatalFailure, match=r"\$PROKOS_OUTPUT does not hold JSON: .* at line 2, column 1"):
        await shell("printf '{\n]' > $PROKOS_OUTPUT")
    with pytest.raises(FatalFailure, match=r"\$PROKOS_OUTPUT does not hold JSON: byte 0 is not UTF-8"):
        await shell("printf '\\377' > $PROKOS_OUTPUT")


async def test_an_output_beyond_the_limit_is_fatal_and_names_it() -> None:
    with pytest.raises(FatalFailure, match=r"30000 bytes.*spec\.script\.maxOutputBytes \(20000\)"):
        await shell("head -c 30000 /dev/zero > $PROKOS_OUTPUT", max_output_bytes=20_000)


async def test_an_output_file_that_is_a_link_or_pipe_is_not_read() -> None:
    with pytest.raises(FatalFailure, match=r"\$PROKOS_OUTPUT cannot be read"):
        await shell("ln -s /etc/passwd $PROKOS_OUTPUT")
    with pytest.raises(FatalFailure, match=r"\$PROKOS_OUTPUT is not a regular file"):
        await shell("mkfifo $PROKOS_OUTPUT")


async def test_any_command_can_raise_a_business_error() -> None:
    source = 'echo \'{"code": "DECLINED", "message": "no cover", "variables": {"limit": 10}}\' > $PROKOS_ERROR; exit 1'
    with pytest.raises(BusinessError) as error:
        await shell(source)
    assert (error.value.code, error.value.message, error.value.variables) == ("DECLINED", "no cover", {"limit": 10})


@pytest.mark.parametrize(
    "text", ["[]", '{"code": 5}', '{"code": ""}', '{"code": "A", "variables": []}', '{"retryAfterSeconds": "x"}', "{"]
)
async def test_an_error_file_that_makes_no_sense_is_fatal(text: str) -> None:
    if text == '{"code": "A", "variables": []}':
        text = '{"code": "A", "variables": [1]}'
    with pytest.raises(FatalFailure, match=r"\$PROKOS_ERROR"):
        await shell(f"echo '{text}' > $PROKOS_ERROR")


async def test_exit_code_78_is_fatal_with_the_last_lines() -> None:
    with pytest.raises(FatalFailure, match="exited with code 78: no such account"):
        await shell("echo no such account >&2; exit 78")


async def test_a_signal_is_tried_again_and_named() -> None:
    with pytest.raises(RetryableFailure, match="ended by SIGSEGV"):
        await shell("kill -SEGV $$")
    with pytest.raises(RetryableFailure, match="ended by SIGKILL, perhaps because memory ran out"):
        await shell("kill -KILL $$")


async def test_a_failure_shows_only_the_last_lines() -> None:
    with pytest.raises(RetryableFailure) as failure:
        await shell("seq 100000 >&2; exit 1")
    message = str(failure.value)
    assert message.endswith("99999\n100000")
    assert len(message) < 2100


async def test_a_failure_without_errors_shows_the_output() -> None:
    with pytest.raises(RetryableFailure, match="code 1: it went wrong"):
        await shell("echo it went wrong; exit 1")


# Environment


async def test_the_environment_is_minimal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_SECRET", "x")
    output = await python(
        "import os\nos.environ['TOKEN'] = os.environ['TOKEN'][::-1]\noutput = dict(os.environ)",
        env={"SITE": "B"},
        secret_env={"TOKEN": "token"},
        task=TASK,
    )
    prefix = {name for name in output if not name.startswith("PROKOS_")}
    assert prefix == {"PATH", "LANG", "HOME", "TMPDIR", "SITE", "TOKEN"}
    assert output["TOKEN"] == "s3cr3t-token"[::-1]
    assert output["PROKOS_PROCESS_ID"] == "order"
    assert output["PROKOS_JOB_KEY"] == "102"
    assert output["PROKOS_RETRIES"] == "2"
    assert output["PROKOS_IDEMPOTENCY_KEY"] == "102-2"
    assert output["PROKOS_TIMEOUT_SECONDS"] == "90"
    assert output["PROKOS_EXECUTOR"] == "pay"


async def test_home_is_private_and_writable(scratch_root: Path) -> None:
    source = "import os\nopen('x', 'w').close()\noutput = [os.environ['HOME'], os.getcwd(), oct(os.stat('..').st_mode)]"
    home, cwd, mode = (await python(source))["result"]
    assert home == cwd
    assert home.startswith(str(scratch_root))
    assert mode == "0o40700"


@pytest.mark.parametrize(
    "settings",
    [{"env": {"PROKOS_OUTPUT": "/x"}}, {"env": {"A=B": "x"}}, {"env": {"A": "x"}, "secret_env": {"A": "token"}}],
)
def test_refuses_environments_that_would_mislead(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ScriptSettings(command=["true"], **settings)


async def test_no_descriptors_of_the_worker_are_inherited() -> None:
    output = await python("import os\noutput = sorted(os.listdir('/proc/self/fd'))")
    assert output["result"] == ["0", "1", "2", "3"]  # 3 is the listing itself


async def test_writes_no_core_dumps() -> None:
    source = "import resource\noutput = resource.getrlimit(resource.RLIMIT_CORE)"
    assert await python(source) == {"result": [0, 0]}


# Logs


async def test_output_goes_to_the_log_without_secrets() -> None:
    source = "echo one; echo token $TOKEN >&2; echo \"$KEY\"; printf 'no newline'"
    with capture_logs() as logs:
        await shell(source, secret_env={"TOKEN": "token", "KEY": "key"})
    lines = {(entry["stream"], entry["line"]) for entry in logs if entry["event"] == "script output"}
    assert ("stdout", "one") in lines
    assert ("stderr", "token <secret token>") in lines
    assert ("stdout", "no newline") in lines
    assert not any("MIIE" in line for _, line in lines)


async def test_messages_hold_no_secrets() -> None:
    with pytest.raises(RetryableFailure) as failure:
        await shell('echo "$TOKEN $KEY" >&2; exit 1', secret_env={"TOKEN": "token", "KEY": "key"})
    assert "s3cr3t" not in str(failure.value)
    assert "MIIE" not in str(failure.value)


async def test_logs_that_are_not_utf8_or_hold_escapes_do_no_harm() -> None:
    with capture_logs() as logs:
        await shell("printf 'a\\377b\\033[31mc\\n'")
    assert [entry["line"] for entry in logs if entry["event"] == "script output"] == ["a�b�[31mc"]


async def test_a_hundred_megabytes_of_output_pass_in_flat_memory() -> None:
    before = psutil.Process().memory_info().rss
    source = "import sys\nfor _ in range(1000):\n    sys.stdout.write('x' * 99_999 + '\\n')\noutput = 1"
    with capture_logs() as logs:
        assert await python(source) == {"result": 1}
    logged = sum(len(entry["line"]) for entry in logs if "line" in entry)
    assert logged < 1_010_000
    assert any("more bytes of output were dropped (limit 1000000)" in entry.get("line", "") for entry in logs)
    assert psutil.Process().memory_info().rss - before < 20_000_000


async def test_a_script_that_ignores_a_large_input_does_not_block() -> None:
    assert await shell("echo '{}' > $PROKOS_OUTPUT", {"a": "x" * 3_000_000}) == {}
