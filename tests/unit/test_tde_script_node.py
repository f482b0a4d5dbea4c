"""Node scripts of the `script` executor, with a real Node."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from prokos.tde import BusinessError, FatalFailure, RetryableFailure
from unit.script_bench import marker, node, run, scratch_root

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["marker", "scratch_root"]


@pytest.mark.parametrize(
    "source",
    [
        "function main(input) { return { sum: input.a + 1 } }",
        "async function main(input) { return { sum: input.a + 1 } } // the last line is a comment",
        "const main = (input) => ({ sum: input.a + 1 });",
        "exports.main = async (input) => ({ sum: input.a + 1 });",
        "module.exports = (input) => ({ sum: input.a + 1 });",
        "export function main(input) { return { sum: input.a + 1 } }",
        "export default async (input) => ({ sum: input.a + 1 });",
        "import path from 'node:path';\nawait 0;\nexport const main = (input) => ({ sum: input.a + 1 });",
        "exports.main = async (input) => (await import('node:path')) && { sum: input.a + 1 };",
    ],
)
async def test_main_is_found_however_it_is_written(source: str) -> None:
    assert await node(source, {"a": 41}) == {"sum": 42}


@pytest.mark.parametrize(
    ("result", "output"),
    [("[1, 'ü']", {"result": [1, "ü"]}), ("undefined", {}), ("null", {}), ("'text'", {"result": "text"}), ("{}", {})],
)
async def test_results_are_those_of_the_other_languages(result: str, output: dict[str, Any]) -> None:
    assert await node(f"exports.main = () => ({result})") == output


async def test_a_script_without_main_writes_the_files_itself() -> None:
    assert await node("require('fs').writeFileSync(process.env.PROKOS_OUTPUT, '{\"a\": 1}')") == {"a": 1}


async def test_arguments_environment_and_input_arrive() -> None:
    source = """
        const input = JSON.parse(require("fs").readFileSync(0, "utf8"));
        exports.main = (same) => ({
          argv: process.argv.slice(2), main: process.argv[1].endsWith("/script"), site: process.env.SITE,
          same: JSON.stringify(input) === JSON.stringify(same),
        });
    """
    output = await node(source, {"a": [1]}, arguments=["--x", "$(a)"], env={"SITE": "B"})
    assert output == {"argv": ["--x", "[1]"], "main": True, "site": "B", "same": True}


async def test_raises_business_errors_and_failures() -> None:
    with pytest.raises(BusinessError) as error:
        await node("function main() { throw new BusinessError('DECLINED', 'no cover', { limit: 10n ** 17n }) }")
    assert (error.value.code, error.value.message, error.value.variables) == ("DECLINED", "no cover", {"limit": 10**17})
    with pytest.raises(RetryableFailure, match=r"^busy$") as retry:
        await node("exports.main = async () => { throw new RetryableFailure('busy', 90) }")
    assert retry.value.retry_after == timedelta(seconds=90)
    with pytest.raises(FatalFailure, match=r"^wrong account$"):
        await node("throw new FatalFailure('wrong account')")
    with pytest.raises(FatalFailure, match="error cannot be written as JSON"):
        await node("throw new BusinessError('A', 'b', { self: globalThis })")


async def test_an_exception_is_tried_again_with_its_stack() -> None:
    for source in (
        "function main(input) {\n  return input.a.b.c;\n}",
        "exports.main = () => new Promise(() => setTimeout(() => { undefined.c }, 1))",
        "exports.main = () => { Promise.reject(new TypeError('lost')); return new Promise(() => {}) }",
    ):
        with pytest.raises(RetryableFailure, match=r"exited with code 1: (?s:.*)TypeError"):
            await node(source, {"a": 1})
    with pytest.raises(RetryableFailure, match=r"script\.js:2"):
        await node("function main(input) {\n  return input.a.b.c;\n}", {"a": 1})


@pytest.mark.parametrize("source", ["function main( {", "import x from 'node:fs'\nexport function ("])
async def test_what_does_not_compile_is_fatal(source: str) -> None:
    with pytest.raises(FatalFailure, match=r"exited with code 78: (?s:.*)SyntaxError"):
        await node(source)


@pytest.mark.parametrize("value", ["() => 1", "Symbol('a')"])
async def test_a_result_that_is_not_json_is_fatal(value: str) -> None:
    with pytest.raises(FatalFailure, match=r"result is a (function|symbol), which JSON cannot hold"):
        await node(f"exports.main = () => ({value})")


async def test_exit_codes_count() -> None:
    with pytest.raises(RetryableFailure, match="exited with code 3"):
        await node("process.exit(3)")
    with pytest.raises(FatalFailure, match="exited with code 78"):
        await node("process.exitCode = 78")


async def test_timers_that_are_left_hold_up_nothing() -> None:
    assert await node("exports.main = () => { setInterval(() => {}, 1000); return 1 }") == {"result": 1}


async def test_output_goes_to_the_log_also_right_before_the_end() -> None:
    source = "exports.main = () => { console.log('x'.repeat(300000)); console.error('end'); process.exit(0) }"
    with capture_logs() as logs:
        await node(source)
    lines = [entry["line"] for entry in logs if entry["event"] == "script output"]
    assert sum(map(len, lines)) == 300_003


@pytest.mark.parametrize("name", ["main.js", "main.cjs", "main.mjs"])
async def test_a_file_finds_what_lies_beside_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "helper.cjs").write_text("exports.add = (a) => a + 1;")
    (tmp_path / name).write_text(
        "import helper from './helper.cjs';\nexport const main = (input) => helper.add(input.a);"
        if name == "main.mjs"
        else "const { add } = require('./helper.cjs');\nfunction main(input) { return add(input.a) }"
    )
    assert await run({"a": 1}, language="node", file=str(tmp_path / name)) == {"result": 2}


async def test_memory_beyond_the_limit_ends_it_before_the_machine_notices() -> None:
    source = "const kept = []; exports.main = () => { for (;;) kept.push(new Array(10000).fill(Math.random())) }"
    with pytest.raises((FatalFailure, RetryableFailure), match=r"heap out of memory|limits\.memory"):
        await node(source, limits={"memory": "160Mi"})


async def test_a_missing_node_is_fatal_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FatalFailure, match="cannot run node: no such program"):
        await node("exports.main = () => 1")


async def test_scripts_do_not_see_each_other() -> None:
    source = "exports.main = () => { const seen = 'left' in globalThis; globalThis.left = 1; return seen }"
    assert [await node(source) for _ in range(2)] == [{"result": False}] * 2
