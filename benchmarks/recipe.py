"""Recipes: which models, kinds and seeds to train on which data, and the runs that follow. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metric_zoo.benchmarks.record import config_id, first_problem, record_path
from metric_zoo.errors import RecipeError, suggest


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class DataConfig(_Strict):
    """The data set.

    Attributes:
        name: ``digits`` (scikit-learn's, embedded), ``fashion-mnist``, ``cifar10``, ``cifar100`` or ``folder``.
        root: folder of the data; None is ``$METRIC_ZOO_DATA``, else the platform's cache folder. Not part of a run's
            identity: the data's fingerprint is in the record.
        image_size: pixels a side that images are resized to; None keeps them.
        channels: 1 or 3; None keeps the data's own.
        augment: ``none``, or ``crop-flip`` (random crop from a 12.5% border, random horizontal flip).
    """

    name: str = "digits"
    root: str | None = None
    image_size: int | None = Field(None, ge=1)
    channels: Literal[1, 3] | None = None
    augment: Literal["none", "crop-flip"] = "none"


class ModelConfig(_Strict):
    """An architecture: its registry's name, ``source``, constructor ``options``, and what to start from.

    ``small_image_stem`` gives a ResNet a 3x3 stride-1 stem without max-pool (the paper's setting for small images).
    """

    name: str
    source: Literal["timm", "torchvision"] = "timm"
    options: dict[str, Any] = {}
    pretrained: bool = False
    small_image_stem: bool = False


class ConvolutionConfig(_Strict):
    """A kind of convolution, its options, and where it goes (see `metric_zoo.convert`).

    ``freeze_kernels`` trains the heads only (the paper's FKW); ``init: uniform`` is the paper's start.
    """

    kind: str
    options: dict[str, Any] = {}
    where: str | list[str] | dict[str, str | None] | None = None
    init: Literal["pretrained", "uniform"] = "pretrained"
    freeze_kernels: bool = False


class TrainConfig(_Strict):
    """How to train. ``batch_size`` is global: it is shared out over the processes.

    ``head_regularization`` is the factor of `metric_zoo.nn.head_regularization` (5000 in the published runs).
    """

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=1)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    head_lr_scale: float = Field(0.1, ge=0)
    head_regularization: float = Field(0.0, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    precision: Literal["no", "fp16", "bf16"] = "no"
    num_workers: int = Field(0, ge=0)


class MeasureConfig(_Strict):
    """Throughput: ``repeats`` timed batches of ``batch_size`` after ``warmup`` untimed ones."""

    batch_size: int = Field(64, ge=1)
    warmup: int = Field(3, ge=0)
    repeats: int = Field(20, ge=3)


class Recipe(_Strict):
    """The file. Its runs are models x kinds x seeds."""

    name: str
    task: Literal["classification"] = "classification"
    data: DataConfig = DataConfig()
    models: list[ModelConfig] = Field(min_length=1)
    kinds: list[ConvolutionConfig] = Field(min_length=1)
    seeds: list[int] = Field([0], min_length=1)
    train: TrainConfig = TrainConfig()
    measure: MeasureConfig = MeasureConfig()


class Run(_Strict):
    """One run of a recipe."""

    recipe: str
    task: str
    data: DataConfig
    model: ModelConfig
    kind: ConvolutionConfig
    seed: int
    train: TrainConfig
    measure: MeasureConfig
    processes: int = Field(1, ge=1)
    device: str = "cpu"

    @property
    def config(self) -> dict[str, Any]:
        """What identifies the run: all that can change its figures, none of where the data lie.

        That includes the number of processes (each normalises its own part of a batch) and the type of device.
        """
        config = self.model_dump(mode="json")
        config["data"].pop("root")
        config["train"].pop("num_workers")
        return config

    @property
    def id(self) -> str:
        """Hash of `config`."""
        return config_id(self.config)

    @property
    def label(self) -> str:
        """For a progress bar: ``resnet10t metric seed 0``."""
        return f"{self.model.name} {self.kind.kind} seed {self.seed}"

    def path(self, folder: Path) -> Path:
        """Where its record lies."""
        return record_path(folder, self.model.name, self.kind.kind, self.seed, self.id)


def load_recipe(path: Path) -> Recipe:
    """Read and validate a recipe.

    Raises:
        RecipeError: if the file cannot be read, is not YAML, or a key or value is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"recipe {path} is not text in UTF-8") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"recipe {path} is empty or a list, expected keys: {', '.join(Recipe.model_fields)}")
    for section, key in (("kinds", "kind"), ("models", "name")):
        if isinstance(data.get(section), list):
            data[section] = [{key: entry} if isinstance(entry, str) else entry for entry in data[section]]
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"recipe {path}: {_explain(error)}") from None


def expand(recipe: Recipe, processes: int = 1, device: str = "cpu") -> list[Run]:
    """The runs of a recipe: every model, kind and seed; twins (equal in everything) once.

    Args:
        recipe: from `load_recipe`.
        processes: that will train each run together.
        device: type of device they use, ``"cpu"`` or ``"cuda"``.

    Raises:
        RecipeError: for a kind that does not exist, or options it does not take.
    """
    from metric_zoo.nn.registry import get_kind

    for entry in recipe.kinds:
        try:
            get_kind(entry.kind).config.from_options(entry.kind, entry.options)
        except ValueError as error:
            raise RecipeError(f"recipe {recipe.name!r}: {error}") from None
    if recipe.train.batch_size % processes:
        raise RecipeError(
            f"recipe {recipe.name!r}: train.batch_size={recipe.train.batch_size} cannot be shared out over "
            f"{processes} processes"
        )
    if recipe.train.precision == "fp16" and device == "cpu":
        raise RecipeError(f"recipe {recipe.name!r}: train.precision='fp16' needs a GPU; on a CPU use 'bf16' or 'no'")
    shared = {"recipe": recipe.name, "task": recipe.task, "data": recipe.data, "train": recipe.train}
    shared |= {"measure": recipe.measure, "processes": processes, "device": device}
    runs = [
        Run(model=model, kind=kind, seed=seed, **shared)
        for model in recipe.models
        for seed in recipe.seeds
        for kind in recipe.kinds
    ]
    return list({run.id: run for run in runs}.values())


def _explain(error: ValidationError) -> str:
    """One line; an unknown key gets the nearest known one."""
    problem = error.errors(include_url=False)[0]
    if problem["type"] != "extra_forbidden":
        return first_problem(error)
    *parents, key = problem["loc"]
    known = _fields_at(parents)
    place = ".".join(str(part) for part in parents)
    return f"unknown key {key!r}{f' in {place}' if place else ''}{suggest(str(key), known)}; known: {', '.join(known)}"


def _fields_at(parents: list[Any]) -> list[str]:
    parts = {"data": DataConfig, "models": ModelConfig, "kinds": ConvolutionConfig, "train": TrainConfig}
    parts["measure"] = MeasureConfig
    section = parts.get(parents[0]) if parents else Recipe
    return list(section.model_fields) if section else []
