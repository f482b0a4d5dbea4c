"""Scripts that write what they should not, or where they should not: the worker reads it unharmed and leaves nothing.

Each test ends with the checks of `scratch_root`: no directory, process or descriptor is left.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from prokos.tde import FatalFailure
from unit.script_bench import context, eventually, executing, marker, python, run, scratch_root, shell

__all__ = ["marker", "scratch_root"]

# What it writes


async def test_endless_output_is_cut_with_a_note_and_costs_no_memory() -> None:
    before = psutil.Process().memory_info().rss
    async with executing({"language": "shell", "source": "yes", "limits": {"log": "10k"}}) as executor:
        with capture_logs() as logs:
            task = asyncio.create_task(executor.execute({}, context()))
            await eventually(lambda: any("cut here" in str(entry.get("line")) for entry in logs))
            done, _ = await asyncio.wait([task], timeout=1)
            assert not done, "it goes on writing"
            task.cancel()
            await asyncio.wait([task])
    lines = [entry["line"] for entry in logs if entry["event"] == "script output"]
    assert lines[0] == "y"
    assert lines[-1] == "... the output is cut here: more than 10000 bytes of log"
    assert len(lines) < 60
    assert psutil.Process().memory_info().rss - before < 20_000_000


async def test_a_line_without_end_is_logged_in_pieces() -> None:
    with capture_logs() as logs:
        await shell("head -c 100000 /dev/zero | tr '\\0' x")
    lines = [entry["line"] for entry in logs if entry["event"] == "script output"]
    assert "".join(lines) == "x" * 100_000
    assert max(map(len, lines)) <= 8192


async def test_deep_json_is_fatal() -> None:
    for text in ("'[' * 1000000", "'{\"a\":' * 100000", "'[' * 5000 + ']' * 5000"):
        with pytest.raises(FatalFailure, match=r"\$PROKOS_OUTPUT does not hold JSON"):
            await python(f"import os\nopen(os.environ['PROKOS_OUTPUT'], 'w').write({text})")


@pytest.mark.parametrize(
    ("making", "reason"),
    [
        ("ln -s /etc/passwd $PROKOS_OUTPUT", "cannot be read"),
        ("ln -s /dev/zero $PROKOS_OUTPUT", "cannot be read"),
        ("mkfifo $PROKOS_OUTPUT", "is not a regular file"),
        ("mkdir $PROKOS_OUTPUT", "is not a regular file"),
        ("truncate -s 10G $PROKOS_OUTPUT", "has 10737418240 bytes, which exceeds spec.script.maxOutputBytes"),
        ("printf '\\377\\376{}' > $PROKOS_OUTPUT", "byte 0 is not UTF-8"),
        ("printf '{\"a\": NaN}' > $PROKOS_OUTPUT", "NaN is not JSON"),
        ("printf -- '-Infinity' > $PROKOS_OUTPUT", "-Infinity is not JSON"),
        ('printf \'{"a": "\\\\ud800"}\' > $PROKOS_OUTPUT', "half of a surrogate pair"),
        ("head -c 6000 /dev/zero | tr '\\0' 9 > $PROKOS_OUTPUT", r"4300 digits"),
    ],
    ids=["link", "device", "pipe", "directory", "sparse", "encoding", "nan", "infinity", "surrogate", "digits"],
)
async def test_an_output_that_is_none_is_fatal(making: str, reason: str) -> None:
    for name in ("OUTPUT", "ERROR"):
        with pytest.raises(FatalFailure, match=rf"\$PROKOS_{name}.*{reason}"):
            await shell(making.replace("OUTPUT", name), limits={"fileSize": "20G"})


async def test_a_socket_in_place_of_the_output_is_fatal() -> None:
    source = "import os, socket\nos.chdir('..')\nsocket.socket(socket.AF_UNIX).bind('output.json')"
    with pytest.raises(FatalFailure, match=r"\$PROKOS_OUTPUT cannot be read"):
        await python(source)


INTEGERS = [2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, 10**100]


@pytest.mark.parametrize("language", ["python", "shell", "node"])
async def test_integers_beyond_2_to_the_53_stay_what_they_are(language: str) -> None:
    source = {
        "python": "def main(input):\n    return input",
        "shell": 'cp "$PROKOS_INPUT" "$PROKOS_OUTPUT"',
        "node": "exports.main = (input) => input",
    }[language]
    data = {"n": INTEGERS, "text": str(2**53 + 1), "quoted": f'"{2**53 + 1}"', "deep": [{"n": 2**53 + 1}]}
    assert await run(data, language=language, source=source) == data


async def test_a_number_that_is_none_is_not_made_null() -> None:
    for source in ("output = {'a': [float('inf')]}", "output = {'a': float('nan')}"):
        with pytest.raises(FatalFailure, match="result cannot be written as JSON"):
            await python(source)
    for number in ("NaN", "-Infinity"):
        with pytest.raises(FatalFailure, match=f'result cannot be written as JSON: "a" is {number}'):
            await run(language="node", source=f"exports.main = () => ({{a: {number}}})")
    assert math.isinf((await shell("echo 1e400 > $PROKOS_OUTPUT"))["result"])  # the engine refuses it by name


async def test_closing_the_input_early_harms_nobody() -> None:
    assert await shell("exec 0<&-; echo '{}' > $PROKOS_OUTPUT", {"a": "x" * 3_000_000}) == {}
    assert await shell("head -c 10 > /dev/null; echo '{}' > $PROKOS_OUTPUT", {"a": "x" * 3_000_000}) == {}


async def test_closing_the_output_early_harms_nobody() -> None:
    assert await shell("exec 1>&- 2>&-; echo '{\"a\": 1}' > $PROKOS_OUTPUT; sleep 0.3") == {"a": 1}


# Where it writes


async def test_links_in_its_directory_are_not_followed_when_it_is_removed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    await shell(f"ln -s {victim} link; mkdir locked; ln -s {victim} locked/link; chmod 000 locked")
    await shell(f"cd ..; mv home ../moved; ln -s {victim} home; rm -rf ../moved")
    await shell(f'cd ..; here=$PWD; cd ..; rm -rf "$here"; ln -s {victim} "$here"')
    assert (victim / "file").read_text() == "precious"


async def test_a_script_cannot_write_the_result_of_the_next_one() -> None:
    source = """
        import os, pathlib
        def main(input):
            for other in pathlib.Path(os.environ["PROKOS_OUTPUT"]).parent.parent.iterdir():
                (other / "left").touch()
            return sorted(path.name for path in pathlib.Path("..").iterdir())
    """
    async with executing({"language": "python", "source": source}) as executor:
        for _ in range(2):
            files = (await executor.execute({}, context()))["result"]
            assert files == ["home", "input.json", "left", "script"]


async def test_what_a_killed_worker_and_guardian_left_is_removed_by_the_next_worker(scratch_root: Path) -> None:
    for name in ("prokos-task-stale", "prokos-task-fresh", "another"):
        (scratch_root / name / "home").mkdir(parents=True)
        (scratch_root / name / "input.json").write_text("{}")
        if name != "prokos-task-fresh":
            os.utime(scratch_root / name, (0, 0))
    async with executing({"command": ["true"]}) as executor:
        await executor.execute({}, context())
    assert {path.name for path in scratch_root.iterdir()} == {"prokos-task-fresh", "another"}
    for path in scratch_root.iterdir():
        shutil.rmtree(path)


async def test_a_directory_that_a_worker_uses_is_not_swept(tmp_path: Path) -> None:
    source = "import os, time\nwhile not os.path.exists(input['go']):\n    time.sleep(0.01)\noutput = os.listdir('..')"
    async with executing({"language": "python", "source": source}) as executor:
        task = asyncio.create_task(executor.execute({"go": str(tmp_path / "go")}, context()))
        directory = Path(sys.modules["tempfile"].tempdir)
        await eventually(lambda: any((each / "script").exists() for each in directory.iterdir()))
        for each in directory.iterdir():
            os.utime(each, (0, 0))
        async with executing({"command": ["true"]}):
            (tmp_path / "go").touch()
        assert sorted((await task)["result"]) == ["home", "input.json", "script"]
