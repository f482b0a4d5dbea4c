from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpmn_samples import process, service_task
from prokos.resources import ProcessDefinition, ProkOS, TaskExecutor
from prokos.resources.files import MAX_FILE_BYTES
from prokos.resources.manifests import Loaded, load_manifests

EXECUTOR = """\
apiVersion: prokos.io/v1alpha1
kind: TaskExecutor
metadata:
  name: pay
spec:
  type: http
  accepts:
    - jobType: pay
  http:
    url: https://pay.example/
"""


def load(directory: Path, text: str, name: str = "a.yaml") -> Loaded:
    (directory / name).write_text(textwrap.dedent(text), encoding="utf-8")
    return load_manifests([directory])


def messages(loaded: Loaded, directory: Path) -> list[str]:
    return [str(problem).replace(f"{directory}{os.sep}", "") for problem in loaded.problems]


def test_loads_a_resource_with_file_line_and_document_index(tmp_path):
    loaded = load(tmp_path, "# none\n---\n---\n" + EXECUTOR)
    assert loaded.problems == []
    (at,) = loaded.of(TaskExecutor)
    assert (at.resource.metadata.name, at.file, at.line, at.index) == ("pay", tmp_path / "a.yaml", 4, 1)
    assert at.line_of(("spec", "accepts", 0, "jobType")) == 11
    assert at.line_of(("spec", "http", "method")) == 12
    assert at.place(("spec", "accepts", 0)) == f"{tmp_path / 'a.yaml'}:11: spec.accepts[0]"


def test_finds_files_below_a_directory_in_order_but_not_in_hidden_ones(tmp_path):
    for place in ("b/two.yml", "a/one.yaml", ".git/three.yaml", "b/.prokos/four.yaml", "c/notes.txt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(EXECUTOR.replace("name: pay", f"name: {Path(place).stem}"))
    names = [at.resource.metadata.name for at in load_manifests([tmp_path]).resources]
    assert names == ["one", "two"]


def test_loads_a_file_once_however_often_it_is_named(tmp_path):
    load(tmp_path, EXECUTOR)
    (tmp_path / "link.yaml").symlink_to(tmp_path / "a.yaml")
    loaded = load_manifests([tmp_path / "a.yaml", tmp_path, tmp_path / ".." / tmp_path.name / "a.yaml"])
    assert len(loaded.resources) == 1
    assert loaded.problems == []


def test_loads_a_hidden_directory_that_is_named(tmp_path):
    (tmp_path / ".mine").mkdir()
    (tmp_path / ".mine" / "a.yaml").write_text(EXECUTOR)
    assert len(load_manifests([tmp_path / ".mine"]).resources) == 1


def test_refuses_unknown_field_with_its_path_and_a_suggestion(tmp_path):
    loaded = load(tmp_path, EXECUTOR.replace("jobType", "job_type"))
    assert messages(loaded, tmp_path) == ["a.yaml:8: spec.accepts[0].job_type: unknown field (did you mean jobType?)"]
    assert loaded.resources == []


def test_names_the_fields_when_nothing_is_close(tmp_path):
    loaded = load(tmp_path, EXECUTOR.replace("jobType: pay", "zzz: pay"))
    assert messages(loaded, tmp_path) == [
        "a.yaml:8: spec.accepts[0].zzz: unknown field (the fields here are element, headers, jobType, process)"
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("type: http\n", "type: htpp\n", "container, python (did you mean http?)"),
        ("name: pay", "name: Pay_1", "metadata.name: 'Pay_1' is not a valid name"),
        ("jobType: pay", "jobType: 5", 'spec.accepts[0].jobType: must be text, and 5 is not (quote it: "5")'),
        ("jobType: pay", "jobType: on", 'spec.accepts[0].jobType: must be text, and true is not (quote it: "true")'),
        ("url: https", "timeout: 5\n    url: https", "spec.http.timeout: unknown field"),
        ("  http:\n", "  timeout: 5\n  http:\n", "spec.timeout: 5 is not a duration; give the unit"),
        ("  http:\n", "  backoff: []\n  http:\n", "spec.backoff: must be a mapping, not a list"),
        ("  http:\n", "  concurrency: 0\n  http:\n", "spec.concurrency: should be greater than or equal to 1; it is 0"),
        ("    url: https://pay.example/\n", "    method: GET\n", "spec.http.url: is required"),
        ("  http:\n", "  sql:\n", "spec.sql: url must start with sqlite://"),
    ],
)
def test_says_what_is_wrong_with_a_field(tmp_path, old, new, expected):
    assert old in EXECUTOR
    assert any(expected in line for line in messages(load(tmp_path, EXECUTOR.replace(old, new)), tmp_path))


def test_reports_every_wrong_field_of_every_document(tmp_path):
    broken = EXECUTOR.replace("type: http\n", "type: x\n  extra: 1\n")
    loaded = load(tmp_path, broken + "---\n" + EXECUTOR + "---\n" + broken)
    assert [problem.line for problem in loaded.problems] == [6, 7, 29, 30]
    assert len(loaded.resources) == 1


def test_ignores_kinds_of_others_whatever_is_in_them(tmp_path):
    others = "apiVersion: v1\nkind: Secret\na: 1\na: 2\nb: !Ref x\n---\napiVersion: apps/v1\nkind: Deployment\n"
    assert load(tmp_path, others) == Loaded([], [])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            "apiVersion: prokos.io/v1alpha1\nkind: TaskExecuter\n",
            "a.yaml:2: kind: 'TaskExecuter' is no kind of prokos.io (did you mean TaskExecutor?)",
        ),
        (
            "apiVersion: prokos.io/v1alpha1\nkind: Pod\n",
            "a.yaml:2: kind: 'Pod' is no kind of prokos.io "
            "(the kinds are ProkOS, TaskExecutor, ProcessDefinition, TaskRoute)",
        ),
        (
            "apiVersion: prokos.io/v1\nkind: TaskRoute\n",
            "a.yaml:1: apiVersion: 'prokos.io/v1' is not a version of prokos.io that this ProkOS knows "
            "(write prokos.io/v1alpha1)",
        ),
        ("kind: TaskRoute\nspec: {}\n", "a.yaml:1: apiVersion: is required (write prokos.io/v1alpha1)"),
        (
            "apiVersion: prokos/v1alpha1\nkind: TaskRoute\n",
            "a.yaml:1: apiVersion: 'prokos/v1alpha1' is not prokos.io/v1alpha1 (write prokos.io/v1alpha1)",
        ),
        ("some: values\n", "a.yaml:1: warning: not a Kubernetes manifest, ignored"),
        ("- a\n- b\n", "a.yaml:1: warning: not a Kubernetes manifest, ignored"),
    ],
)
def test_says_which_api_version_and_kind_to_write(tmp_path, header, expected):
    assert messages(load(tmp_path, header), tmp_path) == [expected]


def test_refuses_duplicate_keys_with_both_lines(tmp_path):
    loaded = load(tmp_path, EXECUTOR + "    url: https://other.example/\n")
    assert messages(loaded, tmp_path) == ["a.yaml:11: spec.http.url: key 'url' is there twice, first in line 10"]


def test_reads_documents_before_a_syntax_error_and_reports_its_line(tmp_path):
    loaded = load(tmp_path, EXECUTOR + "---\na: [1\nb: 2\n")
    assert len(loaded.resources) == 1
    assert [(problem.line, problem.message[:14]) for problem in loaded.problems] == [(13, "not valid YAML")]


def test_expands_aliases_and_merge_keys(tmp_path):
    text = EXECUTOR.replace("  http:\n", "  http: &call\n    headers: {a: b}\n") + (
        "---\n" + EXECUTOR.replace("name: pay", "name: &n two").replace("jobType: pay", "jobType: *n")
    )
    loaded = load(tmp_path, text)
    assert loaded.problems == []
    assert loaded.only(TaskExecutor)[1].spec.accepts[0].job_type == "two"
    merged = load(
        tmp_path,
        """\
        apiVersion: prokos.io/v1alpha1
        kind: ProkOS
        metadata: {name: a}
        spec:
          pdo: &pdo {shards: 2, window: 7}
          router:
            <<: {mode: llm, model: m}
            mode: rules
        """,
    )
    router = merged.only(ProkOS)[0].spec.router
    assert (router.mode, router.model) == ("rules", "m")


def test_bounds_what_aliases_may_add(tmp_path):
    pairs = zip("abcdefgh", "bcdefghi", strict=True)
    levels = "".join(f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n" for below, name in pairs)
    loaded = load(tmp_path, "a: &a [x, x, x, x, x, x, x, x, x]\n" + levels)
    assert "aliases add more than" in str(loaded.problems[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[" * 100_000, "nested deeper than 64 levels"),
        ("- " * 1_000, "nested deeper than 64 levels"),
        ("a: &a [*a]\n", "alias *a contains itself"),
        ("a: *nowhere\n", "alias *nowhere has no anchor"),
        ("a: \x01\n", "control character"),
    ],
)
def test_survives_hostile_yaml(tmp_path, text, expected):
    assert expected in str(load(tmp_path, text).problems[0])


def test_keeps_dates_as_text_and_refuses_what_json_has_not(tmp_path):
    python = EXECUTOR.replace("type: http", "type: python").partition("  http:")[0]
    settings_text = "  python:\n    executor: a:B\n    settings: {day: 2026-01-31, equal: =, 8080: web}\n"
    loaded = load(tmp_path, python + settings_text)
    block = loaded.only(TaskExecutor)[0].spec.python
    assert block is not None
    assert block.settings == {"day": "2026-01-31", "equal": "=", "8080": "web"}
    loaded = load(tmp_path, python + "  python:\n    executor: a:B\n    settings: {a: .nan, b: !!binary AA==}\n")
    assert [problem.field for problem in loaded.problems] == ["spec.python.settings.a", "spec.python.settings.b"]


def test_reports_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    (tmp_path / "long.yaml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    (tmp_path / "dir.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "text.txt").write_text("")
    loaded = load_manifests([tmp_path, tmp_path / "missing", tmp_path / "text.txt"])
    assert messages(loaded, tmp_path) == [
        "gone.yaml: does not exist",
        "latin.yaml: is not UTF-8 (byte 8, line 2)",
        "long.yaml: is longer than 4 MiB",
        "missing: does not exist",
        "pipe.yaml: is not a file",
        "text.txt: is neither YAML (.yaml, .yml, .json) nor BPMN (.bpmn)",
    ]


def test_refuses_a_second_resource_of_the_same_name_and_names_both_places(tmp_path):
    (tmp_path / "b.yaml").write_text("---\n" + EXECUTOR)
    loaded = load(tmp_path, EXECUTOR)
    assert messages(loaded, tmp_path) == [
        "b.yaml:5: metadata.name: TaskExecutor 'pay' is there twice, first in a.yaml:1 (rename one of them)"
    ]
    assert len(loaded.resources) == 1


def test_the_same_name_in_another_namespace_is_another_resource(tmp_path):
    other = EXECUTOR.replace("name: pay", "name: pay\n  namespace: other")
    assert len(load(tmp_path, EXECUTOR + "---\n" + other).resources) == 2


def test_a_bare_bpmn_file_becomes_a_definition_named_after_its_process(tmp_path):
    (tmp_path / "x.bpmn").write_text(process(service_task("T"), process_id="Order_Fulfilment"))
    (tmp_path / "Broken File.bpmn").write_text("<no")
    loaded = load_manifests([tmp_path])
    assert {at.resource.metadata.name: at.file.name for at in loaded.resources} == {
        "order-fulfilment": "x.bpmn",
        "broken-file": "Broken File.bpmn",
    }
    assert all(at.bpmn is not None and at.bpmn.line == 1 for at in loaded.resources)


def test_a_bpmn_file_that_a_definition_names_is_not_a_definition_of_its_own(tmp_path):
    (tmp_path / "bpmn").mkdir()
    (tmp_path / "bpmn" / "orders.bpmn").write_text(process(service_task("T")))
    loaded = load(tmp_path, definition("file: bpmn/../bpmn/orders.bpmn"))
    assert loaded.problems == []
    (at,) = loaded.of(ProcessDefinition)
    assert at.resource.metadata.name == "orders"
    assert at.bpmn is not None
    assert at.bpmn.xml == (tmp_path / "bpmn" / "orders.bpmn").read_bytes()


def definition(source: str) -> str:
    return (
        "apiVersion: prokos.io/v1alpha1\nkind: ProcessDefinition\nmetadata: {name: orders}\n"
        f"spec:\n{textwrap.indent(source, '  ')}\n"
    )


def test_reads_inline_bpmn_and_knows_on_which_line_it_starts(tmp_path):
    xml = process(service_task("T"))
    (at,) = load(tmp_path, definition("bpmn: |\n" + textwrap.indent(xml, "  "))).of(ProcessDefinition)
    assert at.bpmn is not None
    assert at.bpmn.xml == xml.encode() + b"\n"
    assert (at.bpmn.file, at.bpmn.line) == (tmp_path / "a.yaml", 6)
    (at,) = load(tmp_path, definition("bpmn: '<x/>'")).of(ProcessDefinition)
    assert at.bpmn is not None
    assert at.bpmn.line is None


def test_inline_bpmn_is_encoded_as_its_declaration_says(tmp_path):
    xml = '<?xml version="1.0" encoding="ISO-8859-1"?><a>é</a>'
    (at,) = load(tmp_path, definition(f"bpmn: '{xml}'")).of(ProcessDefinition)
    assert at.bpmn is not None
    assert at.bpmn.xml == xml.encode("iso-8859-1")


def test_reads_bpmn_from_a_config_map_of_the_manifests(tmp_path):
    config_map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: models}\ndata:\n  orders.bpmn: |\n    <x/>\n"
    loaded = load(tmp_path, definition("configMapRef: {name: models, key: orders.bpmn}") + "---\n" + config_map)
    assert loaded.problems == []
    (at,) = loaded.of(ProcessDefinition)
    assert at.bpmn is not None
    assert (at.bpmn.xml, at.bpmn.line) == (b"<x/>\n", 12)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("configMapRef: {name: model, key: a}", "no ConfigMap 'model' of namespace 'default' is in the manifests"),
        ("configMapRef: {name: models, key: a}", "ConfigMap 'models' has no key 'a' in data"),
        ("file: order.bpmn", "order.bpmn does not exist (did you mean orders.bpmn?)"),
        ("file: /etc/orders.bpmn", "'/etc/orders.bpmn' is absolute (give the path relative to the manifest)"),
        ('file: "a\\0b"', "does not exist"),
        ("{}", "give exactly one of bpmn, file or configMapRef"),
    ],
)
def test_says_why_there_is_no_bpmn(tmp_path, source, expected):
    (tmp_path / "orders.bpmn").write_text(process(service_task("T"), process_id="other"))
    config_map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: models}\ndata: {b: c}\n"
    loaded = load(tmp_path, definition(source) + "---\n" + config_map)
    assert [expected in str(problem) for problem in loaded.problems] == [True]
    assert loaded.problems[0].line is not None


def test_unpacks_a_list_as_kubectl_writes_it(tmp_path):
    items = textwrap.indent(EXECUTOR, "    ").replace("    apiVersion", "  - apiVersion", 1)
    loaded = load(tmp_path, f"apiVersion: v1\nkind: List\nitems:\n{items.replace('jobType', 'jobTipe')}")
    assert messages(loaded, tmp_path) == ["a.yaml:11: spec.accepts[0].jobTipe: unknown field (did you mean jobType?)"]
    assert len(load(tmp_path, f"apiVersion: v1\nkind: List\nitems:\n{items}").resources) == 1


# Pieces that reach further into the reader than arbitrary text does.
FRAGMENTS = st.lists(
    st.sampled_from(
        [*EXECUTOR.splitlines(), "---", "- a", "x: &a", "*a", "<<: *a", "? [1]", "spec: null", "!x y", '"']
    ),
    max_size=25,
).map("\n".join)


TEXT = st.text(max_size=200) | FRAGMENTS


@given(st.binary(max_size=200) | TEXT.map(lambda text: text.encode("utf-8", "replace")))
@settings(max_examples=300, deadline=None)
def test_loading_arbitrary_files_never_raises(content):
    with TemporaryDirectory() as directory:
        for name in ("a.yaml", "b.bpmn"):
            Path(directory, name).write_bytes(content)
        loaded = load_manifests([Path(directory)])
    assert all(problem.message and str(problem).isprintable() for problem in loaded.problems)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "type", "http", "url", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON, JSON, st.sampled_from(["ProkOS", "TaskExecutor", "ProcessDefinition", "TaskRoute", "ConfigMap"]))
@settings(max_examples=200, deadline=None)
def test_any_metadata_and_spec_give_a_resource_or_problems(metadata, spec, kind):
    version = "v1" if kind == "ConfigMap" else "prokos.io/v1alpha1"
    document = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec, "data": spec}
    with TemporaryDirectory() as directory:
        Path(directory, "a.yaml").write_text(json.dumps(document), encoding="utf-8")
        loaded = load_manifests([Path(directory)])
    assert loaded.resources or loaded.problems or kind == "ConfigMap"
