"""Checks of URLs, headers and charsets that settings name."""

from __future__ import annotations

import codecs
import re

from prokos.resources.cel import Rule

_ORIGIN = re.compile(r"(?P<origin>https?://[^/?#{}@\s]+)(?:$|[/?#]|\{[/?])")
"""Start of a URL template whose scheme, host and port no input can change."""

_MANAGED_HEADERS = {
    "host": "it follows from url",
    "content-length": "it follows from body",
    "transfer-encoding": "it follows from body",
    "connection": "connections are the worker's",
    "authorization": "use auth, which takes it from a secret",
}

URL_TEMPLATE_RULES = (
    Rule(
        r"self.matches(r'^([^{}]|\{[^{}\s]+\})*$')",
        "is not a URL template: a brace stands alone, or around nothing",
    ),
    Rule(r"self.matches(r'^(https?://|\{\+)')", "must start with http:// or https://"),
    Rule("!self.matches(r'^https?://[^/?#{]*@')", "must not hold credentials; use auth"),
)
"""What `check_url_template` checks, of a field."""

URL_RULES = (
    Rule(
        r"self.matches(r'^https?://[^/?#{}@\s]+($|[/?#])') && !self.matches('[{}]')",
        "is no URL with a host; it must not hold credentials, and no part of it may depend on the input",
    ),
)
"""What `check_url` checks, of a field."""

HAS_FIXED_ORIGIN = r"self.url.matches(r'^https?://[^/?#{}@\s]+($|[/?#]|\{[/?])')"
"""CEL for `fixed_origin` of the field `url`."""


def may_be_set(header: str) -> str:
    """CEL for `check_header` of a name, which is an expression."""
    managed = sorted(_MANAGED_HEADERS)
    return f'{header}.matches(r"^[!#$%&\'*+.^_`|~0-9A-Za-z-]+$") && !({header}.lowerAscii() in {managed})'


_TEXT_CODECS = re.compile(
    r"ascii|utf-8(-sig)?|utf-(16|32)(-[bl]e)?|iso8859-\d+|cp(125\d|437|850|852|855|866|874|932|949|950)"
    r"|koi8-[ru]|mac-(roman|cyrillic)|tis-620|gbk|gb2312|gb18030|hz|big5(hkscs)?"
    r"|euc_(jp|kr|jis_2004)|shift_jis\w*|iso2022_(jp|kr)\w*|johab"
)
"""Python's names of encodings of text. It knows others under the same roof, such as punycode, whose decoders take
quadratic time, or unicode_escape; a server must not choose those."""


def fixed_origin(template: str) -> str | None:
    """Scheme, host and port of a URL template; None when they depend on the input."""
    match = _ORIGIN.match(template)
    return match["origin"] if match else None


def check_url_template(url: str) -> None:
    """Check an RFC 6570 template of an HTTP URL.

    Raises:
        ValueError: It is none, or holds credentials.
    """
    if re.search(r"[{}]", re.sub(r"\{[^{}\s]+\}", "", url)):
        raise ValueError(f"{url!r} is not a URL template: a brace stands alone, or around nothing")
    if not re.match(r"https?://|\{\+", url):
        raise ValueError(f"{url!r} does not start with http:// or https://")
    if re.match(r"https?://[^/?#{]*@", url):
        raise ValueError("a URL must not hold credentials; use auth")


def check_url(url: str, field: str) -> None:
    """Check a URL that is no template.

    Raises:
        ValueError: It is no HTTP URL with a host and without credentials.
    """
    check_url_template(url)
    if fixed_origin(url) is None or "{" in url:
        raise ValueError(f"{field} {url!r} is no URL with a host: no part of it may depend on the input")


def check_header(name: str, value: str = "") -> None:
    """Check a header that settings name.

    Raises:
        ValueError: It cannot be sent, or is not the settings' to say.
    """
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError(f"{name!r} is not the name of a header")
    if name.lower() in _MANAGED_HEADERS:
        raise ValueError(f"header {name} cannot be set: {_MANAGED_HEADERS[name.lower()]}")
    if not re.fullmatch(r"[\t\x20-\x7e]*", value):
        raise ValueError(f"header {name} has a line break or another character that headers cannot hold")


def text_codec(charset: str) -> str | None:
    """Python's name of an encoding of text; None when there is none of this name."""
    try:
        name = codecs.lookup(charset).name
    except (LookupError, ValueError):
        return None
    return name if _TEXT_CODECS.fullmatch(name) else None
