"""The executor contract: what one attempt of a task gets, and the ways it can end.

An executor returns its output (the task completes), or raises `BusinessError` (the process catches it as a
BPMN error), `RetryableFailure` (the task is tried again after a back-off) or `FatalFailure` (an incident, at
once: trying again cannot help). Any other exception counts as a `RetryableFailure`. An executor whose TDE can wait
(`http` with `callback`) may also raise `AwaitCallback`: its result comes later, by message.

Execution is at least once: an executor whose effects must not repeat uses `Context.idempotency_key`, which is
the same in every attempt of a task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, get_args, get_origin

from pydantic import ConfigDict, PydanticUserError, TypeAdapter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger


class BusinessError(Exception):
    """An outcome the process is modelled for: it leaves the task through an error boundary event.

    Raises:
        TypeError: `code` or `message` is no text.
    """

    def __init__(self, code: str, message: str = "", variables: Mapping[str, Any] | None = None) -> None:
        if not isinstance(code, str) or not isinstance(message, str):
            raise TypeError(f"code and message of a BusinessError must be texts, not {code!r} and {message!r}")
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message
        self.variables = dict(variables or {})


class RetryableFailure(Exception):  # noqa: N818 - "failure" is the engine's word for it
    """A technical failure that may pass; `retry_after` overrides the executor's back-off.

    Raises:
        TypeError: `retry_after` is no timedelta.
    """

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        if retry_after is not None and not isinstance(retry_after, timedelta):
            raise TypeError(f"retry_after must be a timedelta, not {retry_after!r}; the failure: {message}")
        self.retry_after = retry_after


class FatalFailure(Exception):  # noqa: N818 - "failure" is the engine's word for it
    """A technical failure that no further attempt can mend; the task becomes an incident at once."""


class AwaitCallback(Exception):  # noqa: N818 - no error: the work goes on elsewhere
    """The result comes later, as message `prokos.callback` with this token as correlation key."""

    def __init__(self, token: str, timeout: timedelta) -> None:
        super().__init__(f"awaits its callback for {timeout}")
        self.token = token
        self.timeout = timeout


@dataclass(frozen=True, slots=True)
class TaggedTask:
    """One active task, tagged with the process it belongs to. Keys are the engine's 64-bit keys."""

    process_id: str
    process_version: int
    process_instance_key: int
    element_id: str
    element_name: str
    element_instance_key: int
    job_key: int
    job_type: str
    retries: int
    """Attempts left, this one included."""
    max_retries: int
    """Attempts the process gives the task, as far as it is known."""
    deadline: int
    """When the engine takes the task back, in milliseconds since the epoch on the engine's clock."""
    lease: int
    """Length of the lease that ends at `deadline`, in milliseconds."""
    tenant_id: str = "<default>"
    verify: bool = False
    """A TDE of this task may have been started before: the task may have ended since."""

    def to_variable(self) -> dict[str, Any]:
        """The form in which the task travels as the TDE's variable `prokosTask`."""
        # Made for every task: `dataclasses.asdict` copies each value, at a twentieth of the PDO's processor time.
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_variable(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_variable` wrote, or a newer version's: fields that are unknown here are left out."""
        return cls(**{name: value[name] for name in cls.__dataclass_fields__ if name in value})


class Secrets:
    """The values of an executor's secrets, by the names it declares; they do not print."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        try:
            return self._values[name]
        except KeyError:
            raise FatalFailure(f"secret {name!r} is not declared in spec.secrets of the executor") from None

    @property
    def names(self) -> frozenset[str]:
        """The names that are declared."""
        return frozenset(self._values)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self._values))})"

    def redact(self, text: str) -> str:
        """Replace every secret value that occurs in `text`, for messages that leave the worker."""
        # The longest first: a secret may be a part of another one.
        for name, value in sorted(self._values.items(), key=lambda item: -len(item[1])):
            if value:
                text = text.replace(value, f"<secret {name}>")
        return text


@dataclass(frozen=True, slots=True)
class Environment:
    """What a worker gives its executor for its whole life."""

    name: str
    workdir: Path
    concurrency: int
    secrets: Secrets = field(default_factory=lambda: Secrets({}))


@dataclass(frozen=True, slots=True)
class Context:
    """What belongs to one attempt."""

    idempotency_key: str
    """The task's job key: the same in every attempt, so that a service can tell a repetition from a new task."""
    timeout: timedelta
    log: FilteringBoundLogger
    task: TaggedTask | None = None
    """The dispatched task; None when a process calls the TDE itself."""
    attempt: int = 0
    """0 for the first attempt, as far as the number of attempts is known."""


def output_adapter(output_type: Any) -> TypeAdapter[Any]:
    """Serializes an output. NaN and infinities stay what they are and are refused later, instead of becoming null."""
    try:
        return TypeAdapter(output_type, config=ConfigDict(ser_json_inf_nan="constants"))
    except PydanticUserError:
        # Models, dataclasses and typed dictionaries have a configuration of their own.
        return TypeAdapter(output_type)


Input = TypeVar("Input")
Output = TypeVar("Output")


class Executor(ABC, Generic[Input, Output]):
    """One type of work. Subclass it with the types of its input and output.

    The types may be anything pydantic validates: a model, a dataclass, a TypedDict, `dict[str, Any]`. An output
    that is not an object becomes the single variable `result`.
    """

    _input: ClassVar[TypeAdapter[Any]] = TypeAdapter(dict[str, Any])
    _output: ClassVar[TypeAdapter[Any]] = output_adapter(Any)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is Executor:
                input_type, output_type = get_args(base)
                cls._input = TypeAdapter(input_type)
                cls._output = output_adapter(output_type)

    def __init__(self, settings: Any, environment: Environment) -> None:
        self.settings = settings
        self.environment = environment

    async def start(self) -> None:
        """Acquire what lives as long as the worker, such as a connection pool."""

    async def close(self) -> None:
        """Release it."""

    @abstractmethod
    async def execute(self, data: Input, context: Context) -> Output:
        """Do the work of one attempt.

        It is cancelled when its time is over or its task is gone; an executor that started something outside
        this coroutine ends it then.
        """

    async def resume(self, result: Any, context: Context) -> Output:
        """Turn the result that a callback brought into an output; may raise what `execute` raises."""
        raise FatalFailure(f"executors of type {type(self).__name__} await no callbacks")

    @classmethod
    def parse_input(cls, data: Mapping[str, Any]) -> Any:
        """Validate the input against the executor's type. Raises `pydantic.ValidationError`."""
        return cls._input.validate_python(data)

    @classmethod
    def dump_output(cls, output: Any) -> dict[str, Any]:
        """Turn an output into variables."""
        try:
            dumped = cls._output.dump_python(output, mode="json", by_alias=True)
        except ValueError as error:
            if "depth" in str(error):
                raise FatalFailure("the output is nested too deeply; 250 levels are possible") from error
            raise
        return dumped if isinstance(dumped, dict) else {"result": dumped}
