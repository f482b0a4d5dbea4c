"""Writes the CRDs, made from the models: crds/ for kubectl, and the templates of the chart prokos-crds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from prokos.resources.crds import GROUP, KINDS, build_crd

ROOT = Path(__file__).parents[1]
PLAIN, CHART = ROOT / "crds", ROOT / "helm" / "prokos-crds" / "templates"

HEADER = "Made from the models in operator/prokos/resources by `make crds`."

TEMPLATE = """\
{{{{- /* {header} */ -}}}}
apiVersion: {apiVersion}
kind: {kind}
metadata:
  name: {name}
  labels:
    {{{{- include "prokos-crds.labels" . | nindent 4 }}}}
  {{{{- with include "prokos-crds.annotations" . }}}}
  annotations:
    {{{{- . | nindent 4 }}}}
  {{{{- end }}}}
{spec}"""


class _Dumper(yaml.SafeDumper):
    """YAML as people write it: no aliases, lists indented."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def files() -> dict[Path, str]:
    """The text of every file, by its path."""
    made = {}
    for kind in KINDS:
        crd = build_crd(kind)
        name = f"{GROUP}_{kind.plural}.yaml"
        plain = {**crd, "metadata": {**crd["metadata"], "labels": {"app.kubernetes.io/part-of": "prokos"}}}
        made[PLAIN / name] = f"# {HEADER}\n{_dump(plain)}"
        made[CHART / name] = TEMPLATE.format(
            header=HEADER,
            apiVersion=crd["apiVersion"],
            kind=crd["kind"],
            name=crd["metadata"]["name"],
            # A description may hold what Helm would take for its own.
            spec=_dump({"spec": crd["spec"]}).replace("{{", '{{ "{{" }}'),
        )
    return made


def _dump(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def main() -> None:
    """Write all files, and remove those of kinds that are gone."""
    wanted = files()
    for path in {*PLAIN.glob(f"{GROUP}_*.yaml"), *CHART.glob(f"{GROUP}_*.yaml")} - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
