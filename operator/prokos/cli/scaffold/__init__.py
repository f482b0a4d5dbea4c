"""The files of a new executor."""

from __future__ import annotations

import re
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from prokos import __version__

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "executor.py": "{module}.py",
    "executor.yaml": "{name}.yaml",
    "test_executor.py": "test_{module}.py",
    "Dockerfile": "Dockerfile",
    "README.md": "README.md",
}
"""Template to name of the file."""


def new_executor(name: str, directory: Path) -> list[Path]:
    """Write the files of a new executor; returns them.

    Raises:
        FileExistsError: One is there already; nothing was written.
    """
    words = re.findall(r"[a-z0-9]+", name)
    # Prefix and suffix keep clear of digits at the start, keywords and modules of Python's own.
    class_name = "".join(word.capitalize() for word in words) + "Executor"
    values = {
        "name": name,
        "module": "_".join(["executor", *words]),
        "class_name": class_name if class_name.isidentifier() else f"The{class_name}",
        "title": " ".join(words).capitalize(),
        "version": __version__,
    }
    written = {directory / target.format(**values): template for template, target in FILES.items()}
    for path in written:
        if path.exists():
            raise FileExistsError(f"{path} is there already")
    directory.mkdir(parents=True, exist_ok=True)
    for path, template in written.items():
        text = (files(__name__) / f"{template}.tmpl").read_text()
        path.write_text(Template(text).substitute(values))
    return list(written)
