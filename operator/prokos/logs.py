"""Structured logs: JSON lines for machines, or text for a person at a terminal."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    Processors = list[structlog.typing.Processor]


class _Unfailing:
    """A stream that drops what cannot be written: a full disk must not stop the work that is logged."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class _Foreign(logging.StreamHandler[TextIO]):
    """Writes what does not come from structlog."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name in logging
        """Say where the message is wrong; Python would print its arguments."""
        structlog.get_logger(__name__).warning(
            "a log message cannot be written", logger=record.name, file=record.pathname, line=record.lineno
        )


def configure_logging(file: TextIO | None = None, clear: Callable[[str], str] | None = None) -> None:
    """Set up structlog for this process, and bring warnings and errors of other libraries' `logging` into its form.

    `PROKOS_LOG_FORMAT` is `json` or `text` (default: text on a terminal), `PROKOS_LOG_LEVEL` a level's name.

    Args:
        file: Where to write JSON lines instead of standard error.
        clear: Applied to each line before it is written, to keep secrets out. Loggers that were used before have
            taken their settings, and write on without it.
    """
    chosen = "json" if file else os.environ.get("PROKOS_LOG_FORMAT") or ("text" if sys.stderr.isatty() else "json")
    level = logging.getLevelNamesMapping().get(os.environ.get("PROKOS_LOG_LEVEL", "INFO").upper(), logging.INFO)
    renderer: structlog.typing.Processor
    if chosen == "json":
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
        # By default structlog shows the local variables of every frame, and so an API key or a task's data.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        exceptions: structlog.typing.Processor = structlog.processors.ExceptionRenderer(tracebacks)
    else:
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        exceptions = structlog.dev.set_exc_info
    stream = cast("TextIO", _Unfailing(file or sys.stderr))
    begin: Processors = [structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)]
    write: Processors = [exceptions, renderer]
    if clear:
        write.append(lambda _, __, line: clear(cast("str", line)))
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *begin, *write],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = _Foreign(stream)
    # Most libraries tell too much at lower levels: each request, with its URL.
    handler.setLevel(max(level, logging.WARNING))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *write],
            foreign_pre_chain=[*begin, structlog.stdlib.add_logger_name],
        )
    )
    root = logging.getLogger()
    root.handlers = [one for one in root.handlers if not isinstance(one, _Foreign)] + [handler]
