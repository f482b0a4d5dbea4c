"""The documentation says what is so: its fields, manifests, commands, variables and links exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import typer.main
import yaml
from pydantic import BaseModel

from prokos.cli.app import app
from prokos.processes import check_manifests
from prokos.resources import ProcessDefinition, ProkOS, TaskExecutor, TaskRoute
from prokos.resources.executor import ExecutorType
from prokos.resources.manifests import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
VARIABLE = re.compile(r"\bPROKOS_[A-Z_]*[A-Z]\b")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def fences(page: Path, *languages: str) -> list[str]:
    """The text of a page's blocks in these languages; "" is a block that names none."""
    return [text for language, text in FENCE.findall(page.read_text()) if language in languages]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return FENCE.sub("", page.read_text())


# --- resources -----------------------------------------------------------------------------------------------


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models within a type, those of their fields included."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for info in annotation.model_fields.values():
            yield from models(info.annotation)
    for argument in get_args(annotation):
        yield from models(argument)


FIELDS = sorted(
    {
        (model.__name__, info.alias or name)
        for kind in (ProkOS, TaskExecutor, ProcessDefinition, TaskRoute)
        for model in models(kind)
        for name, info in model.model_fields.items()
    }
)


def test_fields_of_all_four_kinds_are_known() -> None:
    assert {("PdoSettings", "beatInterval"), ("StatusOutcome", "outcome"), ("TaskRouteSpec", "element")} <= set(FIELDS)
    assert len(FIELDS) > 100


@pytest.mark.parametrize(("model", "field"), FIELDS)
def test_describes_every_field(model: str, field: str) -> None:
    pages = [ROOT / "docs" / "resources.md", *(ROOT / "docs" / "executors").glob("*.md")]
    described = {word for page in pages for code in INLINE.findall(page.read_text()) for word in words(code)}
    assert field in described, f"docs/resources.md does not describe {field} of {model}"


def words(code: str) -> list[str]:
    """The names in a field's path such as `external.tls.caFile`."""
    return re.split(r"[^A-Za-z0-9]+", code)


# --- examples ------------------------------------------------------------------------------------------------

MANIFESTS = [
    pytest.param(text, id=f"{page.name}-{number}")
    for page in PAGES
    for number, text in enumerate(fences(page, "yaml"))
    if any(isinstance(document, dict) and document.get("kind") in KINDS for document in yaml.safe_load_all(text))
]


def test_there_are_examples_of_every_kind_and_executor_type() -> None:
    documents = [document for example in MANIFESTS for document in yaml.safe_load_all(str(example.values[0]))]
    assert {document["kind"] for document in documents} == set(KINDS)
    types = {document["spec"]["type"] for document in documents if document["kind"] == "TaskExecutor"}
    assert types == set(get_args(ExecutorType))


@pytest.mark.parametrize("text", MANIFESTS)
def test_examples_are_valid(text: str, tmp_path: Path) -> None:
    for number, document in enumerate(yaml.safe_load_all(text)):
        KINDS[document["kind"]].model_validate(document, by_alias=True, by_name=False)
        if document["kind"] == "TaskExecutor":
            manifest = tmp_path / f"{number}.yaml"
            manifest.write_text(yaml.safe_dump(document))
            assert list(check_manifests([manifest]).problems) == []


def test_python_examples_compile() -> None:
    for page in PAGES:
        for text in fences(page, "python"):
            compile(text, str(page), "exec")


# --- commands ------------------------------------------------------------------------------------------------


def commands(group: Any, prefix: str = "") -> dict[str, Any]:
    """Commands by their words: `run`, and `executor new` of the group `executor`."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        inner = commands(command, f"{prefix}{name} ") if hasattr(command, "commands") else {prefix + name: command}
        found |= inner
    return found


COMMANDS = commands(typer.main.get_command(app))
GROUPS = {name.partition(" ")[0] for name in COMMANDS if " " in name}


def command_lines(page: Path) -> Iterator[list[str]]:
    """Every `prokos ...` of a page, in words: in blocks of commands and in inline code."""
    for text in fences(page, ""):
        yield from (shlex.split(line) for line in text.splitlines() if line.startswith("prokos "))
    for code in INLINE.findall(prose(page)):
        if code.startswith("prokos "):
            yield code.split()


@every_page
def test_commands_and_their_options_exist(page: Path) -> None:
    for _, name, *arguments in command_lines(page):
        if name.startswith("-") or name == "COMMAND":
            continue
        if name in GROUPS:
            name = f"{name} {arguments.pop(0)}"
        assert name in COMMANDS, f"there is no command prokos {name}"
        known = {
            option for parameter in COMMANDS[name].params for option in [*parameter.opts, *parameter.secondary_opts]
        }
        used = {argument.partition("=")[0] for argument in arguments if argument.startswith("-") and argument != "-"}
        assert used <= known | {"--help"}, f"prokos {name} has no {used - known}"


def test_every_command_has_its_section() -> None:
    headings = re.findall(r"^### (.*)$", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)
    assert {f"prokos {name}" for name in COMMANDS} == {name for heading in headings for name in heading.split(", ")}


@every_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    codes = [*INLINE.findall(prose(page)), *(line for text in fences(page, "") for line in text.splitlines())]
    used = {code.split()[1] for code in codes if code.startswith("make ")}
    assert used <= targets


# --- names, links, form --------------------------------------------------------------------------------------


@every_page
def test_environment_variables_are_read_somewhere(page: Path) -> None:
    readers = [path for name in ("operator", "hack", "tests/engine") for path in (ROOT / name).rglob("*.py")]
    code = "".join(path.read_text() for path in readers)
    composed = {f"PROKOS_{name}" for name in re.findall(r"[A-Z_]+", task_variables())}
    unknown = {name for name in VARIABLE.findall(page.read_text()) if name not in code and name not in composed}
    assert not unknown


def task_variables() -> str:
    """Names that scripts get of their task, which the code composes from the fields of TaggedTask."""
    from prokos.tde import TaggedTask

    return " ".join(TaggedTask.__dataclass_fields__).upper()


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(file), f"{target}: {file.name} has no such heading"


def anchors(page: Path) -> set[str]:
    """What links to a page's headings look like."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_decisions_are_short_and_say_what_was_rejected(page: Path) -> None:
    text = page.read_text()
    assert len(text.splitlines()) <= 40
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Rejected"]
    assert text.startswith(f"# {page.name[:4]} ")
    assert page.name in (page.parent / "README.md").read_text()


@every_page
def test_names_on_the_engine_are_those_of_the_bpmn(page: Path) -> None:
    bpmn = "".join(path.read_text() for path in sorted((ROOT / "bpmn").rglob("*.bp*")))
    for code in INLINE.findall(prose(page)):
        if re.fullmatch(r"prokos\.(kernel|pdo|route)\.[a-z-]+", code) and not is_module(code):
            assert f'"{code}"' in bpmn, f"{code} is no name of a message or job"
        if re.fullmatch(r"prokos-(boot|health|pdo|route|register)[a-z-]*", code):
            assert f'id="{code}"' in bpmn, f"{code} is no process"


def is_module(name: str) -> bool:
    """Whether a dotted name is one of our modules."""
    path = ROOT / "operator" / Path(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


@every_page
def test_tests_that_are_named_exist(page: Path) -> None:
    tests = ROOT / "tests"
    there = {name for file in tests.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    files = {file.name for file in tests.rglob("test_*.py")}
    named = set(re.findall(r"`(?:tests/[\w/]*)?(test_\w+(?:\.py)?)`", page.read_text()))
    assert named <= there | files, sorted(named - there - files)


def test_every_row_of_the_comparison_names_a_test() -> None:
    _, _, compared = (ROOT / "docs" / "executors.md").read_text().partition("\n## Compared\n")
    rows = [line for line in compared.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    heads = [row for row in rows if row.endswith("| test |")]
    assert len(heads) == 5
    for row in rows:
        cells = row.strip("|").split("|")
        assert len(cells) == 5, row
        assert row in heads or re.search(r"`[\w/]*test_\w+(\.py)?`", cells[4]), row
