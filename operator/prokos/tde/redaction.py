"""Clearing what leaves a worker of the secrets that it was given. Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from prokos.tde.contract import FatalFailure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prokos.tde.contract import Secrets

TELLING = 8
"""Shortest secret that a variable must not hold, and shortest part of a secret that is looked for by itself: a line of
one that has several, such as a key, and the password of a URL; in characters."""


class Redactor:
    """Finds secrets in a text: as they are, line by line, and as JSON and Python write them."""

    def __init__(self, secrets: Secrets, names: Iterable[str]) -> None:
        self._names: dict[bytes, str] = {}
        for name in sorted(names):
            for form in _forms(secrets[name]):
                self._names.setdefault(form.encode(errors="surrogateescape"), name)
        # The longest first: a secret may be a part of another one.
        forms = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, forms))) if forms else None
        self.longest = len(forms[0]) if forms else 0
        """Bytes of the longest form."""

    def clear(self, data: bytes) -> bytes:
        """Replace every secret by its name."""
        if self._pattern is None:
            return data
        return self._pattern.sub(lambda found: f"<secret {self._names[found.group()]}>".encode(), data)

    def text(self, text: str) -> str:
        """Replace every secret by its name."""
        return self.clear(text.encode(errors="surrogatepass")).decode(errors="replace")

    def cut_before(self, data: bytes, at: int) -> int:
        """The last place up to `at` where data can be cut without cutting a secret in two."""
        for found in self._pattern.finditer(data) if self._pattern else ():
            if found.start() < at < found.end():
                return found.start()
        return at

    def cut_after(self, data: bytes, at: int) -> int:
        """The first place from `at` on where data can be cut without cutting a secret in two."""
        for found in self._pattern.finditer(data) if self._pattern else ():
            if found.start() < at < found.end():
                return found.end()
        return at

    def refuse(self, value: Any, where: str) -> None:
        """Keep secrets out of variables.

        Raises:
            FatalFailure: The value holds one of at least `TELLING` characters, or cannot be searched.
        """
        if self._pattern is None:
            return
        try:
            # What is not JSON is refused later, by whoever sends it; here it is only searched.
            text = json.dumps(value, ensure_ascii=False, default=repr).encode(errors="surrogatepass")
        except (ValueError, TypeError, RecursionError) as error:
            raise FatalFailure(f"{where} cannot be written as JSON: {error}") from None
        for found in self._pattern.finditer(text):
            if len(found.group()) >= TELLING:
                name = self._names[found.group()]
                raise FatalFailure(f"{where} holds the value of secret {name!r}, which must not become a variable")


def _forms(secret: str) -> set[str]:
    """A secret and its parts as programs print them: plain, as JSON or Python write a text, and that again."""
    parts = [part for part in (*secret.splitlines(), *_passwords(secret)) if len(part) >= TELLING]
    forms = set()
    for plain in filter(None, (secret, *parts)):
        written = {json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1], repr(plain)[1:-1]}
        again = {form.replace("\\", "\\\\") for form in written} | {json.dumps(form)[1:-1] for form in written}
        forms |= {plain, *written, *again}
    return forms


def _passwords(secret: str) -> set[str]:
    """The password of a secret that is a URL, as it stands there and as a server gets it."""
    try:
        password = urlsplit(secret).password or ""
    except ValueError:
        return set()
    return {password, unquote(password)}
