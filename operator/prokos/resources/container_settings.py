"""Settings of executors of type `container`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, StringConstraints

from prokos.resources.base import Duration, Model
from prokos.resources.pods import Resources
from prokos.resources.secrets import SecretName

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = Annotated[str, StringConstraints(pattern=r"^/[\w./-]*$")]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class ContainerSettings(Model):
    """Any image that answers `POST /execute`, beside the worker in its pod.

    The contract is docs/executors/container.openapi.yaml.
    """

    image: str = Field(min_length=1, description="Container image; in a cluster it runs in the worker's pod.")
    command: list[str] = Field(default_factory=list, description="Program and arguments, in place of the image's.")
    port: int = Field(8080, ge=1024, le=65535, description="Where it listens, on the pod's loopback address.")
    path: Path = Field("/execute", description="What is called for each task.")
    health_path: Path = Field("/healthz", description="Answers 2xx when it can take tasks.")
    start_timeout: Duration = Field(
        timedelta(seconds=90),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="How long it may take until it is healthy; then the worker starts anew, and its log says so.",
    )
    env: dict[EnvironmentName, str] = Field(default_factory=dict)
    secret_env: dict[EnvironmentName, SecretName] = Field(
        default_factory=dict, description="Environment variable to the name of one of the executor's secrets."
    )
    resources: Resources = Field(default_factory=Resources)
    max_response_bytes: int = Field(1_000_000, ge=1, description="Longest answer.")

    def secret_references(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Every mention of a secret, with its path below `container`."""
        return ((("secretEnv", variable), secret) for variable, secret in self.secret_env.items())
