"""YAML documents with the line of every field, read so that no input can hurt the reader.

PyYAML's C parser hands out events; its composer is not used, because it recurses: a few thousand opening brackets
end the interpreter. Building from events also tells duplicate keys, which PyYAML takes silently.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prokos.resources.problems import FieldPath

MAX_DEPTH = 64
"""Deepest nesting of a document. Kubernetes' own deepest, a CRD's schema, stays below 40."""

MAX_ALIASED_NODES = 10_000
"""Most nodes that aliases may add to a document; "billion laughs" would add billions."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"


class UnreadableYamlError(Exception):
    """The rest of the file cannot be read; `line` counts from 1 and may be unknown."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One document of a file.

    Attributes:
        value: The content, as JSON values.
        line: Line on which the content starts, counted from 1.
        positions: Line of each field.
        blocks: Line on which the text of a literal block (`|`) starts, for the fields that are one.
        flaws: What is wrong with it: path, line and message.
    """

    value: Any
    line: int
    positions: dict[FieldPath, int]
    blocks: dict[FieldPath, int]
    flaws: list[tuple[FieldPath, int, str]]


def read_documents(text: str) -> Iterator[YamlDocument]:
    """Read the documents of a file one after the other.

    Raises:
        UnreadableYamlError: The text is not YAML from here on, or it passes one of the bounds above.
    """
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if (document := builder.take(event)) is not None:
                yield document
    except yaml.reader.ReaderError as error:
        at = text.encode()[: error.position].count(b"\n") + 1
        raise UnreadableYamlError("not valid YAML: a control character", at) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else None
        raise UnreadableYamlError(f"not valid YAML: {error.problem or error.context}", line) from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise UnreadableYamlError(f"not valid YAML: {error}", None) from error


@dataclass(slots=True)
class _Frame:
    """A mapping or sequence that is not complete yet."""

    value: dict[str, Any] | list[Any]
    line: int
    anchor: str | None
    size: int = 1
    key: str | None = None
    key_line: int = 0
    merges: bool = False
    """The value that comes next belongs to the key `<<`."""
    merged: list[dict[str, Any]] = field(default_factory=list)


class _Builder:
    """Puts values together from the parser's events."""

    def __init__(self) -> None:
        self._resolver: Any = Resolver()
        self._start(1)

    def _start(self, line: int) -> None:
        self._document = YamlDocument(None, line, {}, {}, [])
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._open_anchors: set[str] = set()
        self._aliased = 0
        self._root: Any = None

    def take(self, event: Any) -> YamlDocument | None:
        """Take one event; the document, when this event ends one."""
        line = event.start_mark.line + 1
        match event:
            case yaml.DocumentStartEvent():
                self._start(line)
            case yaml.DocumentEndEvent():
                done = self._document
                return YamlDocument(self._root, done.line, done.positions, done.blocks, done.flaws)
            case yaml.AliasEvent():
                self._alias(event.anchor, line)
            case yaml.ScalarEvent():
                self._scalar(event, line)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._open(event, line)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close()
        return None

    def _scalar(self, event: Any, line: int) -> None:
        frame = self._frames[-1] if self._frames else None
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit)
        if frame is not None and isinstance(frame.value, dict) and frame.key is None:
            self._key(frame, event.value, line, merges=tag == f"{_TAG}merge")
            if event.anchor:
                self._anchors[event.anchor] = (event.value, 1)
            return
        try:
            value = _scalar_value(tag, event.value)
        except ValueError as error:
            self._flaw(line, str(error))
            value = None
        if event.style == "|":
            self._document.blocks[self._path()] = line + 1
        if event.anchor:
            self._anchors[event.anchor] = (value, 1)
        self._add(value, line, 1)

    def _key(self, frame: _Frame, key: str, line: int, *, merges: bool) -> None:
        frame.key, frame.key_line, frame.merges = key, line, merges
        if not merges and key in frame.value:
            first = self._document.positions.get(self._path())
            self._flaw(line, f"key {key!r} is there twice, first in line {first}")

    def _open(self, event: Any, line: int) -> None:
        if len(self._frames) >= MAX_DEPTH:
            raise UnreadableYamlError(f"nested deeper than {MAX_DEPTH} levels", line)
        kind = "map" if isinstance(event, yaml.MappingStartEvent) else "seq"
        if event.tag not in (None, "!", f"{_TAG}{kind}"):
            self._flaw(line, f"tag {event.tag!r} is not supported")
        if not self._frames:
            self._document = YamlDocument(None, line, {}, {}, self._document.flaws)
        if event.anchor:
            self._open_anchors.add(event.anchor)
        self._frames.append(_Frame({} if kind == "map" else [], line, event.anchor))

    def _close(self) -> None:
        frame = self._frames.pop()
        if isinstance(frame.value, dict):
            for source in frame.merged:
                for key, value in source.items():
                    frame.value.setdefault(key, value)
        if frame.anchor:
            self._open_anchors.discard(frame.anchor)
            self._anchors[frame.anchor] = (frame.value, frame.size)
        parent = self._frames[-1] if self._frames else None
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            self._flaw(frame.line, "a key must be text")
            parent.key, parent.key_line, parent.merges = "", frame.line, False
            return
        self._add(frame.value, frame.line, frame.size)

    def _alias(self, anchor: str | None, line: int) -> None:
        if anchor in self._open_anchors:
            raise UnreadableYamlError(f"alias *{anchor} contains itself", line)
        if anchor is None or anchor not in self._anchors:
            raise UnreadableYamlError(f"alias *{anchor} has no anchor", line)
        value, size = self._anchors[anchor]
        self._aliased += size
        if self._aliased > MAX_ALIASED_NODES:
            raise UnreadableYamlError(f"aliases add more than {MAX_ALIASED_NODES} values", line)
        frame = self._frames[-1] if self._frames else None
        if frame is not None and isinstance(frame.value, dict) and frame.key is None:
            if not isinstance(value, str):
                self._flaw(line, "a key must be text")
            self._key(frame, str(value) if isinstance(value, str) else "", line, merges=False)
            return
        self._add(value, line, size)

    def _add(self, value: Any, line: int, size: int) -> None:
        """Put a complete value where it belongs."""
        if not self._frames:
            self._root = value
            return
        frame = self._frames[-1]
        frame.size += size
        path = self._path()
        if isinstance(frame.value, list):
            self._document.positions.setdefault(path, line)
            frame.value.append(value)
            return
        key, merges = frame.key or "", frame.merges
        frame.key, frame.merges = None, False
        if merges:
            self._merge(frame, value, line)
            return
        self._document.positions.setdefault(path, frame.key_line)
        frame.value.setdefault(key, value)

    def _merge(self, frame: _Frame, value: Any, line: int) -> None:
        sources = value if isinstance(value, list) else [value]
        if all(isinstance(source, dict) for source in sources):
            frame.merged.extend(sources)
        else:
            self._flaw(line, "<< needs a mapping or a list of mappings")

    def _path(self) -> FieldPath:
        """Path of the value that comes next."""
        return tuple(len(frame.value) if isinstance(frame.value, list) else frame.key or "" for frame in self._frames)

    def _flaw(self, line: int, message: str) -> None:
        self._document.flaws.append((self._path(), line, message))


_CONSTRUCTOR = SafeConstructor()
_CONSTRUCT: dict[str, Callable[[yaml.ScalarNode], Any]] = {
    f"{_TAG}null": _CONSTRUCTOR.construct_yaml_null,
    f"{_TAG}bool": _CONSTRUCTOR.construct_yaml_bool,
    f"{_TAG}int": _CONSTRUCTOR.construct_yaml_int,
    f"{_TAG}float": _CONSTRUCTOR.construct_yaml_float,
}
# Dates stay text, as they do in Kubernetes, and so does a lone `=`, which YAML 1.1 gives a type of its own.
_TEXT = frozenset({f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}value", f"{_TAG}merge"})


def _scalar_value(tag: str, text: str) -> Any:
    """The JSON value of a scalar. Raises `ValueError` when there is none."""
    if tag in _TEXT:
        return text
    if tag not in _CONSTRUCT:
        raise ValueError(f"tag {tag!r} is not supported")
    try:
        value = _CONSTRUCT[tag](yaml.ScalarNode(tag, text))
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"{text[:40]!r} cannot be read as {tag.removeprefix(_TAG)}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number that JSON has")
    return value
