"""Entry point of the server that starts scripts for the sandbox: `python -I -B harness.py FD`.

    worker --socket--> server --fork--> guardian --fork--> the script or command

The server (`server`) is a small process with one thread, so it may fork, which costs about a millisecond; a new
interpreter costs 15 to 40. A guardian (`guardian`) lives as long as its script and leaves nothing of it behind.
Both use the standard library alone and hold nothing of the worker.
"""

from __future__ import annotations

import importlib
import socket
import sys
import types

PACKAGE = "_prokos_sandbox"
"""The files beside this one as a package. Imported as `prokos.tde` they would bring all of it, and its libraries."""


def main() -> None:
    """Serve at the Unix socket whose descriptor is the argument."""
    package = types.ModuleType(PACKAGE)
    package.__path__ = [__file__.rpartition("/")[0]]
    sys.modules[PACKAGE] = package
    server = importlib.import_module(f"{PACKAGE}.server")
    server.serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
