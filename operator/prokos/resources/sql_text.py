"""Reading the text of SQL statements: where their parameters are, and what they do. Pure.

A statement is cut into code and into what no parameter may stand in: literals, quoted names and comments. It is not
parsed; what is wrong SQL is the database's to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

Database = Literal["postgresql", "mysql", "sqlite"]
"""The databases of type `sql`; `mysql` is MariaDB as well."""

DATABASES: Final[tuple[Database, ...]] = ("postgresql", "mysql", "sqlite")

_COMMENT = r"--[^\n]*|/\*.*?\*/"
_ANSI = rf"(?P<comment>{_COMMENT})|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\""
_QUOTED: Final[dict[Database, re.Pattern[str]]] = {
    # E'...' has backslashes, and a function's body stands between dollars.
    "postgresql": re.compile(
        rf"\b[eE]'(?:[^'\\]|\\.|'')*'|(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$|{_ANSI}", re.DOTALL
    ),
    "mysql": re.compile(
        rf"(?P<comment>{_COMMENT}|#[^\n]*)|'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`(?:[^`]|``)*`", re.DOTALL
    ),
    "sqlite": re.compile(rf"{_ANSI}|`(?:[^`]|``)*`|\[[^\]]*\]", re.DOTALL),
}
_OPENING: Final[dict[Database, re.Pattern[str]]] = {
    "postgresql": re.compile(r"['\"]|/\*"),
    "mysql": re.compile(r"['\"`]|/\*"),
    "sqlite": re.compile(r"['\"`]|/\*"),
}
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?![:\w])")
"""As `sqlalchemy.text` sees them: no casts (`::int`), no slices (`a[1:2]`), not what a backslash precedes."""
_LIST = re.compile(r"\b(?P<not>NOT\s+)?IN\s*(?:\(\s*:(?P<inner>\w+)\s*\)|:(?P<bare>\w+)(?![:\w]))", re.IGNORECASE)
_WRITES = re.compile(r"\b(insert|update|delete|merge|into|for)\b", re.IGNORECASE)
_TRANSACTION = frozenset({"begin", "start", "commit", "end", "rollback", "abort"})


@dataclass(frozen=True, slots=True)
class _Part:
    text: str
    kind: Literal["code", "quoted", "comment"]


@dataclass(frozen=True)
class SqlText:
    """One statement, read as `database` reads it."""

    text: str
    database: Database

    @cached_property
    def parts(self) -> tuple[_Part, ...]:
        """Code, and what no parameter may stand in, in order."""
        parts, end = [], 0
        for match in _QUOTED[self.database].finditer(self.text):
            parts.append(_Part(self.text[end : match.start()], "code"))
            parts.append(_Part(match[0], "comment" if match["comment"] else "quoted"))
            end = match.end()
        parts.append(_Part(self.text[end:], "code"))
        return tuple(part for part in parts if part.text)

    @cached_property
    def code(self) -> str:
        """The statement with empty literals and without comments."""
        blanks = {"quoted": "''", "comment": " "}
        return "".join(blanks.get(part.kind, part.text) for part in self.parts)

    @cached_property
    def keyword(self) -> str:
        """The first word, in lower case."""
        found = re.match(r"[\s(]*(\w+)", self.code)
        return found[1].lower() if found else ""

    @cached_property
    def lists(self) -> frozenset[str]:
        """Parameters that stand alone behind IN, and so are lists."""
        codes = (part.text for part in self.parts if part.kind == "code")
        return frozenset(found["inner"] or found["bare"] for code in codes for found in _LIST.finditer(code))

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters, each once, in order."""
        return tuple(dict.fromkeys(found[1] for found in _PARAMETER.finditer(self.code)))

    @property
    def reads(self) -> bool:
        """Whether it only reads, so that its rows can be fetched one by one through a cursor.

        A guess from its words: a wrong no costs memory, and a yes must be right, since PostgreSQL takes no other
        statement for a cursor. So any word of a writing statement makes it a no.
        """
        return self.keyword in {"select", "with", "values"} and not _WRITES.search(self.code)

    def template(self, empty: frozenset[str] = frozenset()) -> str:
        """The text for `sqlalchemy.text`: only what is a parameter looks like one.

        Args:
            empty: Lists that have no elements. PostgreSQL has no empty list behind IN that fits every type.
        """

        def expand(found: re.Match[str]) -> str:
            name = found["inner"] or found["bare"]
            if name in empty and self.database == "postgresql":
                return "<> ALL ('{}')" if found["not"] else "= ANY ('{}')"
            return f"{found['not'] or ''}IN :{name}"

        return "".join(
            _LIST.sub(expand, part.text) if part.kind == "code" else part.text.replace(":", "\\:")
            for part in self.parts
        )

    def check(self) -> None:
        """Refuse what a task must not consist of.

        Raises:
            ValueError: What is wrong, and what to do.
        """
        if any(part.kind == "code" and _OPENING[self.database].search(part.text) for part in self.parts):
            raise ValueError("a literal, a quoted name or a comment is not closed")
        if not self.keyword:
            raise ValueError("it is empty")
        if self.keyword in _TRANSACTION:
            raise ValueError(f"{self.keyword.upper()} is not allowed: a task's transaction is begun and ended for it")
        # The body of a trigger or function has statements of its own.
        if self.keyword != "create" and re.search(r";\s*\S", self.code):
            raise ValueError("these are several statements; list them in spec.sql.statements")
        if self.database == "mysql" and any(
            part.kind == "quoted" and _ESCAPED.search(part.text) for part in self.parts
        ):
            # Whether it ends the literal depends on a setting of the server, sql_mode NO_BACKSLASH_ESCAPES.
            raise ValueError("a backslash stands before a quote; double the quote instead, or use a parameter")
        outside = _LIST.sub("", self.code)
        for name in sorted(self.lists & {found[1] for found in _PARAMETER.finditer(outside)}):
            raise ValueError(f":{name} is a list behind IN and a single value elsewhere; use two parameters")


_ESCAPED = re.compile(r"\\['\"`]")
