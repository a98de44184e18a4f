"""The record of one run: the contract between the harness and the leaderboards. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from metric_zoo.benchmarks.learners import Learner, learner_of
from metric_zoo.benchmarks.schema import (
    MAX_EPOCHS,
    Amount,
    Count,
    DatasetInfo,
    Epoch,
    Failure,
    Identity,
    Latency,
    Loss,
    Parameters,
    Part,
    Provenance,
    Sampling,
    Seed,
    SplitScores,
    Throughput,
    Tree,
    Word,
    first_problem,
)
from metric_zoo.benchmarks.tasks import TaskName, get_task
from metric_zoo.errors import RecordError

SCHEMA_VERSION = 1


class DamagedRecordError(RecordError):
    """What a file holds is no JSON, or breaks the schema: it can be no record for any program."""


Change = Annotated[float, Field(ge=-1e39, le=1e90, allow_inf_nan=False)]
"""Of one score to another."""
Score = Annotated[float, Field(ge=-1e39, le=1e39, allow_inf_nan=False)]


@lru_cache
def _list_of(epoch: type[Epoch]) -> TypeAdapter:
    limit = Field(max_length=MAX_EPOCHS)
    # The class is known at run time alone.
    return TypeAdapter(Annotated[list[epoch], limit])  # pyright: ignore[reportInvalidTypeForm, reportArgumentType]


class Record(Part):
    """One run. Its task says what the scores of ``train`` and ``test``, both in evaluation mode, and an epoch hold, and
    what ``generalization_gap`` is of them (None where it is not defined).

    ``gflops`` counts the multiply-adds of convolutions and products of one image's forward pass, two operations each,
    by `torch.utils.flop_counter`; the interpolation of sampled layers is not counted. ``device`` is the accelerator's
    name, or ``"cpu"``. ``config`` is the whole configuration, for reading; its hash is ``id``.

    ``inference`` and ``training`` are measured with batches of ``measure.batch_size`` images; the ``_single`` with one
    image, as ``latency_ms`` (batch normalisation may refuse to train with one); the ``_largest`` with as many as fit a
    GPU's memory (powers of two, at most ``measure.largest_batch_size``), and on no CPU. ``micro_batches`` says in how
    many parts each process computed its share of a step.

    ``sampling`` says how far the layers of the network that was scored read from the ordinary grid; None in older
    records, and where nothing is sampled.

    ``searched`` has for every learning rate that was tried its loss on held-out images (None: it was not finite), and
    ``lr`` is the one that was taken; empty and None where the recipe names one.

    ``test_hits`` holds one bit for every test image, whether its answer was right, base64; ``robustness`` the score on
    the test images after each corruption; ``activation_memory_mib`` what a training step of
    ``measure.batch_size`` images keeps for its backward pass; ``wall_seconds`` counts all processes that worked on the
    run one after the other. ``timing`` says where throughput and latency come from if they were measured again after
    the run (``bench measure``).
    """

    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION
    id: Identity
    status: Literal["ok", "failed"]
    failure: Failure | None = None
    recipe: Word
    task: TaskName
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
    train: SerializeAsAny[SplitScores] | None = None
    test: SerializeAsAny[SplitScores] | None = None
    generalization_gap: Change | None = None
    test_hits: Annotated[str, Field(max_length=2**22)] | None = None
    robustness: Annotated[dict[Word, Score], Field(max_length=100)] = Field(default={})
    sampling: Sampling | None = None
    micro_batches: Count | None = None
    searched: Annotated[dict[Word, Loss | None], Field(max_length=100)] = Field(default={})
    lr: Loss | None = None
    epochs: list[SerializeAsAny[Epoch]] = Field(default=[])
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

    @field_validator("train", "test", mode="before")
    @classmethod
    def _of_the_task(cls, scores: Any, info: ValidationInfo) -> Any:
        """By the task's own schema."""
        if scores is None or "task" not in info.data:
            return scores
        task = info.data["task"]
        schema = get_task(task).scores
        if not (isinstance(scores, schema) or (isinstance(scores, dict) and _required(schema) & scores.keys())):
            raise ValueError(f"train and test of task {task!r} are no {schema.__name__}")
        return schema.model_validate(scores)

    @field_validator("epochs", mode="before")
    @classmethod
    def _epochs_of_the_task(cls, epochs: Any, info: ValidationInfo) -> Any:
        if "task" not in info.data:
            return epochs
        return _list_of(get_task(info.data["task"]).epoch).validate_python(epochs)

    @model_validator(mode="after")
    def _complete(self) -> Record:
        if self.status == "failed":
            if self.failure is None:
                raise ValueError("a failed record must say why: 'failure' is missing")
            if self.train is not None or self.test is not None or self.epochs:
                raise ValueError("a failed record has no scores")
            return self
        missing = [name for name in ("dataset", "parameters", "train", "test") if getattr(self, name) is None]
        if self.generalization_gap is None and not missing and self.defined_gap is not None:
            missing = ["generalization_gap"]
        if missing:
            raise ValueError(f"a record with status 'ok' lacks {', '.join(missing)}")
        self._check_robustness()
        if self.searched and self.lr is None:
            raise ValueError("learning rates were searched, but 'lr' does not say which one was taken")
        return self

    def _check_robustness(self) -> None:
        """What is scored after a corruption is what the task says, in its range."""
        assert self.test is not None, "a record that went well is checked"
        scores, field = self.test.model_dump(), get_task(self.task).robust
        if self.robustness and not field:
            raise ValueError(f"task {self.task!r} has no corruptions, but robustness has {', '.join(self.robustness)}")
        for name, value in self.robustness.items():
            try:
                type(self.test).model_validate({**scores, field: value})
            except ValidationError as error:
                raise ValueError(f"robustness.{name}: {first_problem(error)}") from None

    @property
    def defined_gap(self) -> float | None:
        """The generalization gap as the task computes it from the scores of a run that went well."""
        return get_task(self.task).gap_of(self.train, self.test)

    @property
    def learner(self) -> Learner:
        """What learned, or was tuned, in the run."""
        return learner_of(self.kind)

    def section(self, name: str) -> dict[str, Any]:
        """A part of the configuration; empty where a record's is of another form."""
        found = self.config.get(name)
        return found if isinstance(found, dict) else {}


def _required(schema: type[SplitScores]) -> set[str]:
    """The fields that tell its scores from others."""
    return {name for name, field in schema.model_fields.items() if field.is_required()} - {"images"}


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
