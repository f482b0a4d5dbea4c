"""A worker process: `python -m prokos.tde`."""

import sys

# structlog loads rich where it is installed, to draw tracebacks. A worker writes JSON lines.
sys.modules["rich"] = None  # type: ignore[assignment]

from prokos.tde.service import main  # noqa: E402 - after the line above

main()
