"""The sections of a recipe: data, models, convolutions, training, measuring. Needs no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from metric_zoo.benchmarks.schema import MAX_EPOCHS, Tree, Word
from metric_zoo.text import beginning

_LONGEST = 100
"""Characters of a kind's options, in a line that has more to say."""

DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""What a model computes in, by ``train.precision``: names in torch."""
MAX_SEEDS = MAX_RUNS = 10_000


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def _path(text: str) -> str:
    if len(text) > 4000:
        raise ValueError("a path has at most 4000 characters")
    if any(len(os.fsencode(part)) > 255 for part in text.split("/")):
        raise ValueError("a file name has at most 255 bytes")
    return text


# What a record cannot hold (names, options, epochs), or no machine do, is refused before anything is trained.
Int = Annotated[int, BeforeValidator(_no_flag)]
Float = Annotated[float, BeforeValidator(_no_flag)]
Batch = Annotated[Int, Field(ge=1, le=2**20)]
Epochs = Annotated[Int, Field(ge=1, le=MAX_EPOCHS)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]
Location = Annotated[str, AfterValidator(_path)]
"""Its length is no field's: pydantic would refuse names that are not UTF-8."""


class Section(BaseModel):
    """Of a recipe: keys that nobody knows are mistakes. A field of another name than its key has it as its alias."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False, populate_by_name=True)

    def identifying(self) -> dict[str, Any]:
        """The fields that can change a figure; see `_CHANGES_NO_FIGURE` and `_SINCE`."""
        found = {}
        for name, field in type(self).model_fields.items():
            value, marks = getattr(self, name), field.metadata
            if _CHANGES_NO_FIGURE in marks or (_SINCE in marks and value == field.default):
                continue
            found[field.alias or name] = value.identifying() if isinstance(value, Section) else value
        return found


_CHANGES_NO_FIGURE = "changes no figure"
"""Marks a field that is no part of a run's identity."""
_SINCE = "since the first records"
"""Marks a field that is part of it only where it is set: runs that leave it alone are older than the choice."""


class DataConfig(Section):
    """The data set.

    Attributes:
        name: for classification ``digits`` (scikit-learn's, embedded), ``mnist``, ``fashion-mnist``, ``cifar10``,
            ``cifar100``, ``folder`` or ``huggingface`` (a data set on disk); for denoising ``scikit-image`` (its
            pictures, embedded), ``bsds300``, ``bsds500``, ``voc`` or ``folder`` (``train/`` and ``test/``).
        root: folder of the data; None is ``$METRIC_ZOO_DATA``, else the platform's cache folder. Not part of a run's
            identity: the data's fingerprint is in the record.
        label: what to call a ``folder`` or ``huggingface`` data set in tables; None is that word and its folder's name.
        image_column, label_column: of a ``huggingface`` data set that has several.
        image_size: pixels a side that images are resized to (for denoising: that are cut from their middle); None
            keeps them.
        channels: 1 or 3; None keeps the data's own (for denoising: makes them grey).
        augment: ``none``; ``crop-flip`` (random crop from a 12.5% border, random horizontal flip); or
            ``resized-crop-flip`` (a random part of 8 to 100% of the area, resized; random horizontal flip).
        skip_unreadable: leave images out that cannot be read (folders only); the record says how many.
        noise: for denoising, the standard deviation of the Gaussian noise; pixels are in [0, 1], also afterwards.
        image: for denoising a single image, which: one of scikit-image's, or a path in ``root`` of a ``folder``.
    """

    name: Word = "digits"
    root: Annotated[Location | None, _CHANGES_NO_FIGURE] = None
    label: Word | None = None
    image_column: Annotated[Word | None, _SINCE] = None
    label_column: Annotated[Word | None, _SINCE] = None
    image_size: Int | None = Field(default=None, ge=1, le=2**14)
    channels: Literal[1, 3] | None = None
    augment: Literal["none", "crop-flip", "resized-crop-flip"] = "none"
    skip_unreadable: bool = False
    noise: Annotated[Float | None, _SINCE, Field(gt=0)] = None
    image: Annotated[Location | None, _SINCE] = None


class ModelConfig(Section):
    """An architecture: its registry's name, ``source``, constructor ``options``, and what to start from.

    ``metric-zoo`` has the networks of `metric_zoo.benchmarks.single_layer`; ``peer`` is what ``peers``
    become.

    ``small_image_stem`` gives a ResNet a 3x3 stride-1 stem without max-pool (the paper's setting for small images).
    """

    name: Word
    source: Literal["timm", "torchvision", "metric-zoo", "peer"] = "timm"
    options: Tree = {}
    pretrained: bool = False
    small_image_stem: bool = False


UNCONVERTED = "standard"
"""The kind of what is not converted, by the name that records have; boards need it without torch."""


class ConvolutionConfig(Section):
    """A kind of convolution, its options, and where it goes (see `metric_zoo.convert`).

    ``freeze_kernels`` trains the heads only (the paper's FKW); ``init: uniform`` is the paper's start; ``batch_mixed``
    is the published program's confusion of the images of a batch (`metric_zoo.benchmarks.ablations`); ``per_pixel``
    learns the sampling of every pixel itself instead of predicting it (`metric_zoo.benchmarks.per_pixel`).
    """

    kind: Word
    options: Tree = {}
    where: str | list[str] | dict[str, str | None] | None = None
    init: Literal["pretrained", "uniform"] = "pretrained"
    freeze_kernels: bool = False
    batch_mixed: bool = False
    per_pixel: Annotated[bool, _SINCE] = False


def kind_told(kind: str, options: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    """A kind for a reader, with all that another run of it may have otherwise: ``snake (axis=y, init=uniform)``.

    Args:
        kind: its name.
        options: its options.
        section: the recipe's or record's `ConvolutionConfig`, whose other settings are told where they are unusual.
    """
    usual = {name: field.default for name, field in ConvolutionConfig.model_fields.items()}
    unusual = {name: value for name, value in section.items() if value != usual.get(name)}
    told = {**options, **{name: value for name, value in unusual.items() if name not in ("kind", "options")}}
    pairs = (f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in told.items())
    text = "".join(filter(str.isprintable, ", ".join(pairs)))  # a stranger's record may hold anything
    return f"{kind} ({beginning(text, _LONGEST)})" if told else kind


class SearchConfig(Section):
    """Which learning rate? Each of ``lr`` trains ``epochs`` epochs (None: all) on what is not held out; the one with
    the lowest loss on that begins again, with all images."""

    lr: list[Annotated[Float, Field(gt=0)]] = Field(min_length=2, max_length=100)
    epochs: Epochs | None = None


class TrainConfig(Section):
    """How to train.

    Attributes:
        epochs: passes over the training images.
        batch_size: images of one step, on all processes together.
        accumulate: parts that every process computes a step's gradient in, one after the other, to save memory; or
            ``auto``: the fewest that fit. The images of a step, and so the training, stay the same; only batch
            normalisation sees smaller parts.
        optimizer: ``adamw``, ``adam`` or ``sgd`` (momentum 0.9).
        lr: of all but the sampling heads, which learn at ``head_lr_scale`` of it.
        search: finds ``lr``, which then says nothing.
        head_regularization: factor of `metric_zoo.nn.head_regularization` (5000 in the published runs).
        weight_decay: of the optimiser.
        schedule: ``cosine`` (to zero, every step), ``constant``, or ``step``: times ``decay`` at the start of every
            epoch of ``milestones`` (counted from 0).
        warmup_epochs: in which the rate rises from zero to its value.
        clip_norm: largest 2-norm of the gradient; None does not clip.
        ema: decay per step of an exponential moving average of the weights, which is then what is evaluated; None does
            not average.
        precision: of autocast.
        layout: memory format of images and weights.
        compile: train through `torch.compile`.
        num_workers: processes that load data. Changes no figure.
        checkpoint_minutes: a run keeps a checkpoint after so many minutes, and after every epoch. Changes no figure.
    """

    epochs: Epochs = 10
    batch_size: Batch = 64
    accumulate: Batch | Literal["auto"] = 1
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Float = Field(default=1e-3, gt=0)
    search: Annotated[SearchConfig | None, _SINCE] = None
    head_lr_scale: Float = Field(default=0.1, ge=0)
    head_regularization: Float = Field(default=0.0, ge=0)
    weight_decay: Float = Field(default=1e-4, ge=0)
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    milestones: list[Epochs] = []
    decay: Float = Field(default=0.1, gt=0, le=1)
    warmup_epochs: Float = Field(default=0.0, ge=0)
    clip_norm: Float | None = Field(default=None, gt=0)
    ema: Float | None = Field(default=None, gt=0, lt=1)
    precision: Literal["no", "fp16", "bf16"] = "no"
    layout: Literal["contiguous", "channels_last"] = "contiguous"
    compile: bool = False
    num_workers: Annotated[Int, _CHANGES_NO_FIGURE, Field(ge=0, le=1024)] = 0
    checkpoint_minutes: Annotated[Float, _CHANGES_NO_FIGURE, Field(gt=0)] = 10.0

    @model_validator(mode="after")
    def _schedule(self) -> TrainConfig:
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError("schedule 'step' and 'milestones' go together")
        return self


class MeasureConfig(Section):
    """What is measured beside accuracy.

    Attributes:
        batch_size: of the throughput; one image, and on a GPU as many as fit, are measured too.
        largest_batch_size: where to stop looking for what fits.
        warmup: untimed batches, at first.
        repeats: timed batches at least, and as many more as ``seconds`` hold.
        seconds: that every figure is measured for at least.
        corruptions: also score the test images with noise, blur, rotation and scaling.
    """

    batch_size: Batch = 64
    largest_batch_size: Batch = 4096
    warmup: Int = Field(default=3, ge=0, le=10**6)
    repeats: Int = Field(default=30, ge=3, le=10**6)
    seconds: Float = Field(default=10.0, ge=0)
    corruptions: bool = True
