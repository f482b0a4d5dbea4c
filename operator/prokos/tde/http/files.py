"""Files that requests refer to and responses become: plain files below one directory, and nothing else.

A task's data names the file, so a name is followed step by step without any symbolic link, and cannot leave the
directory, whoever else writes into it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prokos.tde.contract import FatalFailure, RetryableFailure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

SETTING = "spec.http.filesDirectory"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO must not hold the worker up


class Files:
    """One executor's directory of files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def prepare(self) -> None:
        """Make the directory.

        Raises:
            ValueError: It cannot be made.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{SETTING}: cannot make {self.directory}: {error.strerror}") from error

    def read(self, name: str, limit: int) -> bytes:
        """Read a file.

        Args:
            name: Relative to the directory, with `/` between its parts.
            limit: Longest content in bytes.

        Raises:
            FatalFailure: There is none, it is longer, or the name leads elsewhere.
        """
        try:
            with self._open(name) as file:
                content: bytes = file.read(limit + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FatalFailure(f"cannot read the file {name!r} of {SETTING}: {reason}") from error
        if len(content) > limit:
            raise FatalFailure(f"the file {name!r} exceeds spec.http.maxRequestBytes ({limit})")
        return content

    @contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        *parents, last = name.split("/")
        if not {"", ".", ".."}.isdisjoint([*parents, last]):
            raise ValueError("the name must be relative, without empty parts, . and ..")
        at = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parents:
                inner = os.open(part, _DIRECTORY, dir_fd=at)
                os.close(at)
                at = inner
            with os.fdopen(os.open(last, _FILE, dir_fd=at), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ValueError("it is no plain file")
                yield file
        finally:
            os.close(at)

    @contextmanager
    def writing(self, name: str) -> Iterator[FileWriter]:
        """Write a file of this name, in place of an older one, when the block ends without an exception.

        Raises:
            RetryableFailure: The disk is full, or broken.
        """
        path = self.directory / re.sub(r"[^A-Za-z0-9._-]", "_", name)
        draft = path.with_name(f".{path.name}.part")
        writer: FileWriter | None = None
        try:
            with draft.open("wb") as file:
                writer = FileWriter(path.name, file)
                yield writer
            draft.replace(path)
        except OSError as error:
            raise RetryableFailure(f"cannot write {path.name!r} into {SETTING}: {error.strerror or error}") from error
        finally:
            draft.unlink(missing_ok=True)


class FileWriter:
    """A file that is being written, and what is known of it."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self._name = name
        self._file = file
        self._size = 0
        self._digest = hashlib.sha256()

    def write(self, part: bytes) -> None:
        """Append bytes."""
        self._file.write(part)
        self._size += len(part)
        self._digest.update(part)

    @property
    def reference(self) -> dict[str, object]:
        """The file as a variable: its name, size in bytes and SHA-256."""
        return {"file": self._name, "size": self._size, "sha256": self._digest.hexdigest()}
