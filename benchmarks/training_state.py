"""How far a training is: what a checkpoint holds beside weights and random numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from metric_zoo.benchmarks.schema import Epoch, first_problem

Seconds = Annotated[float, Field(ge=0, le=1e10)]


@dataclass
class Progress:
    """How far a run is: all that a checkpoint holds beside weights and random numbers."""

    epoch: Annotated[int, Field(ge=0)] = 0
    step: Annotated[int, Field(ge=0)] = 0
    """Steps done of the epoch."""
    sums: Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)] = field(default_factory=lambda: [0.0] * 3)
    """Of the epoch so far, over all processes: losses, right answers, images."""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    epoch_seconds: Seconds = 0.0
    seconds: Seconds = 0.0
    """Of the whole run, before this process began."""
    fingerprint: str = ""
    """Of the data."""
    micro_batches: Annotated[int, Field(ge=1)] = 1
    """Of a step on every process: batch normalisation sees them."""

    def begin_epoch(self) -> None:
        """The next one."""
        self.epoch, self.step, self.epoch_seconds, self.sums = self.epoch + 1, 0, 0.0, [0.0] * 3


def checked(progress: Any, schema: type[Epoch], epochs: int, steps: int, fingerprint: str) -> Progress:
    """What a checkpoint says, if a run like this can have said it; of other data the steps cannot be told.

    Args:
        progress: from the checkpoint.
        schema: of the task's epochs.
        epochs, steps: of the run, and of an epoch.
        fingerprint: of the data.

    Raises:
        ValueError: if it cannot.
    """
    try:
        found = TypeAdapter(Progress).validate_python(progress)
        found.epochs = [schema.model_validate(epoch).model_dump() for epoch in found.epochs]
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
    most = found.step if found.fingerprint != fingerprint else steps
    if len(found.epochs) != found.epoch or found.epoch > epochs or found.step > most:
        raise ValueError(f"its progress, epoch {found.epoch} and step {found.step}, is none of this run")
    return found
