"""What the parts of a record may hold: types of its fields, each with an end. Needs no torch."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from metric_zoo.reading import is_deeper


def _measurable(value: float) -> float:
    if 0 < value < 1e-12:
        raise ValueError("is above 0 and below 1e-12, which nothing here measures")
    return value


# What a run can yield lies well within; sums, squares and ratios of what lies within are finite.
Loss = Annotated[float, Field(ge=0, le=1e39, allow_inf_nan=False)]
"""Of networks that compute in float32; learning rates, too."""
Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False), AfterValidator(_measurable)]
"""Seconds, milliseconds, images per second, joules, MiB or billions of operations."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Side = Annotated[int, Field(ge=1, le=10**6)]
# A record may be a stranger's: what is shown has an end, and what names a file is a name.
MAX_WORD = 200
Word = Annotated[str, Field(max_length=MAX_WORD)]
MAX_TEXT = 4000
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Identity = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
Seed = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**64)]
MAX_BYTES = 16 * 2**20
"""Of a record's file."""
MAX_EPOCHS = 100_000
_MAX_TREE = 2**16


def _bounded(tree: Any) -> Any:
    """What has no schema must end, too: in 64 kB and ten levels, its whole numbers in 64 bits."""
    if is_deeper(tree, 10):
        raise ValueError("has more than ten levels")
    try:
        text = json.dumps(tree, allow_nan=False)
        json.dumps(tree, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"holds what JSON cannot: {error}") from None
    if len(text) > _MAX_TREE:
        raise ValueError(f"has more than {_MAX_TREE} characters")
    json.loads(text, parse_int=_in_64_bits)
    return tree


def _in_64_bits(digits: str) -> None:
    """Larger ones are no floats, where they are shown as such."""
    if not -(2**63) <= int(digits) < 2**64:
        raise ValueError("holds a whole number of more than 64 bits")


Tree = Annotated[dict[str, Any], AfterValidator(_bounded)]


def _in_utc(text: str) -> str:
    """Without a zone it is UTC, not the zone of whoever reads."""
    try:
        time = datetime.fromisoformat(re.sub("Z$", "+00:00", text))  # Python 3.10 knows no Z
    except ValueError:
        raise ValueError(f"{text!r} is no ISO 8601 time") from None
    try:
        return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).astimezone(timezone.utc).isoformat()
    except OverflowError:
        raise ValueError(f"{text!r} is beyond the calendar") from None


Moment = Annotated[str, Field(max_length=40), AfterValidator(_in_utc)]
"""An ISO 8601 time; it is kept in UTC."""


class Part(BaseModel):
    """Unknown keys are ignored, so that an older reader takes a newer record of the same schema version."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class DatasetInfo(Part):
    """Which data: ``fingerprint`` tells equal names with other data apart.

    It is a SHA-256 over all pixels and labels; for a folder, over the names, labels and contents of its files.
    ``unreadable`` images were left out.
    """

    name: Word
    train_size: Count
    test_size: Count
    classes: Count
    image_shape: tuple[Side, Side, Side]
    fingerprint: Word
    unreadable: Count = 0


class Parameters(Part):
    """Numbers of parameters; ``heads`` decide where the layers sample."""

    total: Count
    heads: Count
    trainable: Count


class SplitScores(Part):
    """Of one split, in evaluation mode: what a task's own schema says, and ``images``, how many."""

    if TYPE_CHECKING:  # a task's own schema declares it, in the order of its records
        images: Count


class Epoch(Part):
    """One epoch: ``train_loss`` is the running average while training; a task's own figures follow it, of the test
    split after the epoch."""

    scored: ClassVar[str] = ""
    """The field of the test split that a curve shows; an epoch without it is none."""

    epoch: Count
    lr: Loss
    train_loss: Loss
    seconds: Amount

    @property
    def test_score(self) -> float:
        """For a curve, in the unit of the task's main score."""
        return getattr(self, self.scored)

    @model_validator(mode="after")
    def _scored(self) -> Epoch:
        if self.scored and getattr(self, self.scored) is None:
            raise ValueError(f"an epoch lacks {self.scored}")
        return self

    @model_serializer(mode="wrap")
    def _seconds_last(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As the first records have it."""
        found = write(self)
        return {**{name: value for name, value in found.items() if name != "seconds"}, "seconds": found["seconds"]}


class Throughput(Part):
    """Images per second over ``repeats`` timed batches on one process: median and quartiles.

    ``joules_per_image`` is what the GPU took, by its own counter (NVML), idle parts of it included.
    """

    median: Amount
    lower_quartile: Amount
    upper_quartile: Amount
    repeats: Count
    batch_size: Count
    dtype: Word
    layout: Word
    compiled: bool
    threads: Count
    joules_per_image: Amount | None = None


class Sampling(Part):
    """Where ``layers`` sampled layers of the trained network read the first test images; of `metric_zoo.nn`'s
    `SamplingHealth`: displacements in pixels of each layer's input, ``outside`` the share of samples beside it,
    ``never_moved`` that of the layers whose rule has learned nothing (None: none has one to learn)."""

    layers: Count
    mean: Loss
    p99: Loss
    maximum: Loss
    outside: Share
    never_moved: Share | None = None

    @property
    def told(self) -> str:
        """For a reader."""
        far = f"{self.mean:.3g} px from the grid on average, {self.p99:.3g} at the 99th percentile, {self.maximum:.3g} "
        rest = "" if self.never_moved is None else f", {self.never_moved:.0%} of {self.layers} layers never moved"
        return f"{far}at most, {self.outside:.1%} outside{rest}"


SPEEDS = {
    "inference": "Inference",
    "inference_single": "Inference, one image",
    "inference_largest": "Inference, largest batch",
    "training": "Training",
    "training_single": "Training, one image",
    "training_largest": "Training, largest batch",
}
"""A record's fields of `Throughput`, and what they are called."""


class Latency(Part):
    """Milliseconds of one forward pass at batch size 1."""

    p50: Amount
    p90: Amount
    p99: Amount | None = None


class Failure(Part):
    """Why a run has no figures."""

    type: Word
    message: Text


class Provenance(Part):
    """Where the figures come from."""

    versions: Annotated[dict[Word, Word], Field(max_length=100)]
    git_sha: Word | None
    git_dirty: bool | None
    hardware: Tree
    driver: Word | None
    command: Text
    started: Moment
    finished: Moment


def first_problem(error: ValidationError) -> str:
    """The first of pydantic's findings in one line: place, message and the value given."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"]) or "the whole"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    value = "" if problem["type"] == "missing" or not problem["loc"] else f", got {problem['input']!r:.80}"
    return f"{place}: {problem['msg']}{value}{more}"
