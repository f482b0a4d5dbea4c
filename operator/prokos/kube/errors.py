"""What the API server answers when it does not do what it was asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubernetes.aio.client.exceptions import ApiException

NOT_FOUND = 404
CONFLICT = 409
GONE = 410


class KubeError(Exception):
    """The API server refused a request or could not be reached. The message is the server's own, for people.

    Args:
        status: HTTP status; 0 when there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class KubeConflictError(KubeError):
    """Somebody else has changed or made the object meanwhile."""


def from_api_exception(error: ApiException, what: str) -> KubeError:
    """An error of the client library as one of ours; `what` says what was tried."""
    kind = KubeConflictError if error.status == CONFLICT else KubeError
    return kind(f"{what}: {_message(error)}", error.status or 0)


def _message(error: ApiException) -> str:
    """The message of the `Status` object that API servers answer with."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason or "no answer")
