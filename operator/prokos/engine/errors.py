"""What the engine can answer besides success, in terms a caller can act on."""

from __future__ import annotations

import re

import grpc
import grpc.aio


class EngineError(Exception):
    """The engine refused a command, or could not be asked. The message is the engine's own."""


class EngineUnavailableError(EngineError):
    """The engine cannot be reached, does not answer in time, or has no leader: try again later."""


class BackpressureError(EngineError):
    """The engine takes no more work just now; the command was not executed."""


class NotFoundError(EngineError):
    """What the command names does not exist, or no longer: a job that ended, a process not deployed."""


class RejectedError(EngineError):
    """The command is wrong for the state of the engine, or wrong in itself; repeating it cannot help."""


class WrongStateError(RejectedError):
    """What the command names is not in a state for it, such as a job that waits for its next attempt."""


class PayloadTooLargeError(RejectedError):
    """The variables exceed what the engine can store in one record (4 MB, in effect about 2 MB)."""


class EvaluationError(RejectedError):
    """A decision cannot be computed from these variables."""


class AccessDeniedError(EngineError):
    """The engine does not accept our credentials, or they do not allow this command."""


_BY_STATUS: dict[grpc.StatusCode, type[EngineError]] = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: BackpressureError,
    grpc.StatusCode.UNAVAILABLE: EngineUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: EngineUnavailableError,
    grpc.StatusCode.ABORTED: EngineUnavailableError,
    grpc.StatusCode.CANCELLED: EngineUnavailableError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: WrongStateError,
    grpc.StatusCode.UNAUTHENTICATED: AccessDeniedError,
    grpc.StatusCode.PERMISSION_DENIED: AccessDeniedError,
}

SIZE_LIMIT = "too large: the engine stores about 2 MB of variables in one step, and takes 4 MB in one command"
"""The engine's own words name no limit, or no unit."""

_NOT_CONVERTED, NAME_LIMIT = (
    "Failed to convert JSON to MessagePack",
    "no name in variables may be longer than 50000 characters",
)
"""The broker's words for variables that it cannot store, and the one cause that is known (measured on 8.6.0)."""

_TOO_LARGE = ("larger than max", "EXCEEDED_BATCH_RECORD_SIZE", "exceeds maximum size")
"""How gRPC (here, and in the gateway's Java) and the broker word a payload beyond their limits, in whatever status."""


_CONNECTION_BROKE = ("RST_STREAM", "Stream removed", "GOAWAY")
"""gRPC's own words for a connection that broke in the middle of a call; the status is then UNKNOWN or INTERNAL."""


_NO_TOKEN = re.compile(
    r"plugin failed with error: \((invalid_\w+|unauthorized_client|access_denied|unsupported_grant_type|"
    r"insecure_transport)\)"
)
"""The token endpoint refuses us (RFC 6749, 5.2), or is none over TLS. gRPC calls any lack of a token UNAVAILABLE."""


def from_grpc(error: grpc.aio.AioRpcError) -> EngineError:
    """Translate a gRPC error by its details where its status would mislead: repeating some could never end."""
    details = error.details() or ""
    if any(words in details for words in _TOO_LARGE):
        return PayloadTooLargeError(f"{SIZE_LIMIT} ({details.rstrip(': ')})")
    if any(words in details for words in _CONNECTION_BROKE):
        return EngineUnavailableError(details)
    if refused := _NO_TOKEN.search(details):
        return AccessDeniedError(f"the token endpoint refuses: {refused[1]}")
    if _NOT_CONVERTED in details:
        return RejectedError(f"{details}: {NAME_LIMIT}")
    return _BY_STATUS.get(error.code(), RejectedError)(details or error.code().name)
