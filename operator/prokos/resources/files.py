"""Finding and reading the files that manifests are made of, within bounds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prokos.resources.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

YAML_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
"""JSON is YAML; a directory is searched for the first two only, because JSON there is usually something else."""
BPMN_SUFFIX = ".bpmn"
_SEARCHED = frozenset({".yaml", ".yml", BPMN_SUFFIX})

MAX_FILE_BYTES = 4 * 1024 * 1024
"""Longest file that is read. The engine's own limit for a deployment is 4 MiB (`maxMessageSize`)."""


class UnreadableFileError(Exception):
    """A file that cannot be read; the text says why."""


def find_files(paths: Iterable[Path]) -> Iterator[Path | Problem]:
    """Find the files to load: those named, and those within the directories named, in a fixed order.

    Hidden directories and files are skipped unless they are named. A file is found once, however often it is
    named.

    Yields:
        Each file; a problem for each path that is nothing to load.
    """
    seen: set[str] = set()
    for path in paths:
        for found in _expand(path):
            if isinstance(found, Problem):
                yield found
            elif (real := real_path(found)) not in seen:
                seen.add(real)
                yield found


def real_path(path: Path) -> str:
    """The path without symbolic links; a loop of links, which `Path.resolve` refuses, stays as it is."""
    return os.path.realpath(path)


def _expand(path: Path) -> Iterator[Path | Problem]:
    try:
        is_directory, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        yield Problem("error", str(path), "", f"cannot be read: {error}")
        return
    if is_directory:
        yield from _walk(path)
    elif not exists:
        yield Problem("error", str(path), "", "does not exist")
    elif path.suffix.lower() in YAML_SUFFIXES | {BPMN_SUFFIX}:
        yield path
    else:
        yield Problem("error", str(path), "", "is neither YAML (.yaml, .yml, .json) nor BPMN (.bpmn)")


def _walk(directory: Path) -> Iterator[Path | Problem]:
    refused: list[OSError] = []
    for parent, directories, files in os.walk(directory, onerror=refused.append):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in _SEARCHED:
                yield Path(parent, name)
    for error in refused:
        yield Problem("error", str(error.filename), "", f"cannot be read: {error.strerror}")


def read_bounded(path: Path) -> bytes:
    """Read a file of at most `MAX_FILE_BYTES`.

    Raises:
        UnreadableFileError: It does not exist, is not a regular file, may not be read or is too long.
    """
    try:
        if not path.is_file():
            # Opening a named pipe would wait for a writer.
            raise UnreadableFileError("is not a file" if path.exists() else "does not exist")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise UnreadableFileError(f"is longer than {MAX_FILE_BYTES // 1024 // 1024} MiB")
    return content


def decode(content: bytes) -> str:
    """Decode the text of a YAML file.

    Raises:
        UnreadableFileError: It is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UnreadableFileError(f"is not UTF-8 (byte {error.start}, line {line})") from error
