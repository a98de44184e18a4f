"""The record of one run: the contract between the harness and the leaderboards. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from metric_zoo.errors import RecordError
from metric_zoo.reading import parts

SCHEMA_VERSION = 1


class DamagedRecordError(RecordError):
    """What a file holds is no JSON, or breaks the schema: it can be no record for any program."""


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
    """What has no schema must end, too: in 64 kB and ten levels."""
    level = [tree]
    for _ in range(10):
        level = [item for part in level for item in parts(part)]
    if level:
        raise ValueError("has more than ten levels")
    try:
        text = json.dumps(tree, allow_nan=False)
        json.dumps(tree, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"holds what JSON cannot: {error}") from None
    if len(text) > _MAX_TREE:
        raise ValueError(f"has more than {_MAX_TREE} characters")
    return tree


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


class _Part(BaseModel):
    """Unknown keys are ignored, so that an older reader takes a newer record of the same schema version."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class DatasetInfo(_Part):
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


class Parameters(_Part):
    """Numbers of parameters; ``heads`` decide where the layers sample."""

    total: Count
    heads: Count
    trainable: Count


class Scores(_Part):
    """Of one split, in evaluation mode: accuracies as shares, mean cross-entropy in nats, expected calibration error
    (15 bins of confidence, a share), and how many images."""

    top1: Share
    top5: Share
    loss: Loss
    calibration_error: Share | None = None
    images: Count


class Fidelity(_Part):
    """Of one split's restored images, in evaluation mode, pixels in [0, 1]: means over the images of the mean squared
    error, the peak signal-to-noise ratio in dB and the structural similarity.

    ``published_mse`` is the error as the metric-convolution paper's program adds it up: means over batches, summed,
    over the number of images.
    """

    mse: Loss
    psnr: Annotated[float, Field(ge=-400, le=200, allow_inf_nan=False)]
    ssim: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
    published_mse: Loss
    images: Count


_TAGS = ("accuracy", "fidelity")


def _tag(scores: Any) -> str:
    return _TAGS[isinstance(scores, Fidelity) or (isinstance(scores, dict) and "mse" in scores)]


Quality = Annotated[Annotated[Scores, Tag(_TAGS[0])] | Annotated[Fidelity, Tag(_TAGS[1])], Discriminator(_tag)]
"""What a split's images score."""


class Epoch(_Part):
    """One epoch: ``train_loss`` and ``train_top1`` are running averages while training, the test split's figures are
    those after it. Top-1 is of classification, the error of denoising."""

    epoch: Count
    lr: Loss
    train_loss: Loss
    train_top1: Share | None = None
    test_top1: Share | None = None
    test_mse: Loss | None = None
    seconds: Amount

    @property
    def test_score(self) -> float:
        """For a curve: top-1 in percent, or the error as PSNR in dB."""
        if self.test_mse is None:
            return 100 * self.test_top1
        return -10 * math.log10(max(self.test_mse, 1e-15))


class Throughput(_Part):
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


SPEEDS = {
    "inference": "Inference",
    "inference_single": "Inference, one image",
    "inference_largest": "Inference, largest batch",
    "training": "Training",
    "training_single": "Training, one image",
    "training_largest": "Training, largest batch",
}
"""A record's fields of `Throughput`, and what they are called."""


class Latency(_Part):
    """Milliseconds of one forward pass at batch size 1."""

    p50: Amount
    p90: Amount
    p99: Amount | None = None


class Failure(_Part):
    """Why a run has no figures."""

    type: Word
    message: Text


class Provenance(_Part):
    """Where the figures come from."""

    versions: Annotated[dict[Word, Word], Field(max_length=100)]
    git_sha: Word | None
    git_dirty: bool | None
    hardware: Tree
    driver: Word | None
    command: Text
    started: Moment
    finished: Moment


class Record(_Part):
    """One run. ``generalization_gap`` is train minus test top-1 accuracy, both in evaluation mode, as a share; of
    denoising it is (test - train) / train of the mean squared error.

    ``gflops`` counts the multiply-adds of convolutions and products of one image's forward pass, two operations each,
    by `torch.utils.flop_counter`; the interpolation of sampled layers is not counted. ``device`` is the accelerator's
    name, or ``"cpu"``. ``config`` is the whole configuration, for reading; its hash is ``id``.

    ``inference`` and ``training`` are measured with batches of ``measure.batch_size`` images; the ``_single`` with one
    image, as ``latency_ms`` (batch normalisation may refuse to train with one); the ``_largest`` with as many as fit a
    GPU's memory (powers of two, at most ``measure.largest_batch_size``), and on no CPU. ``micro_batches`` says in how
    many parts each process computed its share of a step.

    ``searched`` has for every learning rate that was tried its loss on held-out images (None: it was not finite), and
    ``lr`` is the one that was taken; empty and None where the recipe names one.

    ``test_hits`` holds one bit for every test image, whether its top-1 answer was right, base64; ``robustness`` the
    top-1 accuracy on the test images after each corruption; ``activation_memory_mib`` what a training step of
    ``measure.batch_size`` images keeps for its backward pass; ``wall_seconds`` counts all processes that worked on the
    run one after the other. ``timing`` says where throughput and latency come from if they were measured again after
    the run (``bench measure``).
    """

    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION
    id: Identity
    status: Literal["ok", "failed"]
    failure: Failure | None = None
    recipe: Word
    task: Word
    model: Word
    source: Word
    weights: Word | None = None
    kind: Word
    options: Tree
    seed: Seed
    world_size: Count
    device: Word
    config: Tree
    dataset: DatasetInfo | None = None
    converted_layers: Count | None = None
    parameters: Parameters | None = None
    gflops: Amount | None = None
    train: Quality | None = None
    test: Quality | None = None
    generalization_gap: Annotated[float, Field(ge=-1, le=1e90, allow_inf_nan=False)] | None = None
    test_hits: Annotated[str, Field(max_length=2**22)] | None = None
    robustness: Annotated[dict[Word, Share], Field(max_length=100)] = {}
    micro_batches: Count | None = None
    searched: Annotated[dict[Word, Loss | None], Field(max_length=100)] = {}
    lr: Loss | None = None
    epochs: Annotated[list[Epoch], Field(max_length=MAX_EPOCHS)] = []
    inference: Throughput | None = None
    inference_single: Throughput | None = None
    inference_largest: Throughput | None = None
    training: Throughput | None = None
    training_single: Throughput | None = None
    training_largest: Throughput | None = None
    latency_ms: Latency | None = None
    peak_memory_mib: Amount | None = None
    activation_memory_mib: Amount | None = None
    wall_seconds: Amount
    provenance: Provenance
    timing: Provenance | None = None

    @model_validator(mode="after")
    def _complete(self) -> Record:
        if self.status == "failed":
            if self.failure is None:
                raise ValueError("a failed record must say why: 'failure' is missing")
            if self.train is not None or self.test is not None or self.epochs:
                raise ValueError("a failed record has no scores")
            return self
        required = ("dataset", "parameters", "train", "test", "generalization_gap")
        missing = [name for name in required if getattr(self, name) is None]
        if missing:
            raise ValueError(f"a record with status 'ok' lacks {', '.join(missing)}")
        scores = Scores if self.task == "classification" else Fidelity
        if not (isinstance(self.train, scores) and isinstance(self.test, scores)):
            raise ValueError(f"train and test of task {self.task!r} are no {scores.__name__}")
        score = "test_top1" if scores is Scores else "test_mse"
        if any(getattr(epoch, score) is None for epoch in self.epochs):
            raise ValueError(f"an epoch lacks {score}")
        if self.searched and self.lr is None:
            raise ValueError("learning rates were searched, but 'lr' does not say which one was taken")
        return self


def config_id(config: dict[str, Any]) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of a run's configuration, independent of key order."""
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def record_key(record: Record) -> str:
    """Twelve hexadecimal digits that tell runs of one configuration apart: on other hardware, on other data."""
    processor = record.provenance.hardware.get("cpu") if record.device == "cpu" else None
    data = record.dataset.fingerprint if record.dataset else None
    return config_id({"id": record.id, "device": record.device, "processor": processor, "data": data})


def record_path(folder: Path, model: str, kind: str, seed: int, identity: str) -> Path:
    """Where a run's record lies: readable words, then the hash that makes it unique."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", f"{model}-{kind}").strip("_")[:120]
    return folder / f"{words}-seed{seed}-{identity}.json"


def first_problem(error: ValidationError) -> str:
    """The first of pydantic's findings in one line: place, message and the value given."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"] if part not in _TAGS) or "the whole"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    value = "" if problem["type"] == "missing" or not problem["loc"] else f", got {problem['input']!r:.80}"
    return f"{place}: {problem['msg']}{value}{more}"
