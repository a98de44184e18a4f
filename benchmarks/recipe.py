"""Recipes: which models, kinds and seeds to train on which data, and the runs that follow. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from metric_zoo.benchmarks.peer_settings import SETTINGS
from metric_zoo.benchmarks.record import config_id, first_problem, record_path
from metric_zoo.errors import RecipeError, suggest

RECIPES = Path(__file__).parent / "recipes"
"""Recipes that come with the package."""
DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""What a model computes in, by ``train.precision``: names in torch."""


Task = Literal["classification", "denoising", "single-image-denoising"]
PEER = "peer"
"""The kind of runs of what is no network with a convolution to convert."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def identifying(self) -> dict[str, Any]:
        """The fields that can change a figure; see `_CHANGES_NO_FIGURE` and `_SINCE`."""
        found = {}
        for name, field in type(self).model_fields.items():
            value, marks = getattr(self, name), field.metadata
            if _CHANGES_NO_FIGURE in marks or (_SINCE in marks and value == field.default):
                continue
            found[name] = value.identifying() if isinstance(value, _Strict) else value
        return found


_CHANGES_NO_FIGURE = "changes no figure"
"""Marks a field that is no part of a run's identity."""
_SINCE = "since the first records"
"""Marks a field that is part of it only where it is set: runs that leave it alone are older than the choice."""


class DataConfig(_Strict):
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

    name: str = "digits"
    root: Annotated[str | None, _CHANGES_NO_FIGURE] = None
    label: str | None = None
    image_column: Annotated[str | None, _SINCE] = None
    label_column: Annotated[str | None, _SINCE] = None
    image_size: int | None = Field(None, ge=1)
    channels: Literal[1, 3] | None = None
    augment: Literal["none", "crop-flip", "resized-crop-flip"] = "none"
    skip_unreadable: bool = False
    noise: Annotated[float | None, _SINCE, Field(gt=0)] = None
    image: Annotated[str | None, _SINCE] = None


class ModelConfig(_Strict):
    """An architecture: its registry's name, ``source``, constructor ``options``, and what to start from.

    ``metric-zoo`` has the networks of `metric_zoo.benchmarks.networks`; ``peer`` is what `Recipe.peers` becomes.

    ``small_image_stem`` gives a ResNet a 3x3 stride-1 stem without max-pool (the paper's setting for small images).
    """

    name: str
    source: Literal["timm", "torchvision", "metric-zoo", "peer"] = "timm"
    options: dict[str, Any] = {}
    pretrained: bool = False
    small_image_stem: bool = False


class ConvolutionConfig(_Strict):
    """A kind of convolution, its options, and where it goes (see `metric_zoo.convert`).

    ``freeze_kernels`` trains the heads only (the paper's FKW); ``init: uniform`` is the paper's start; ``batch_mixed``
    is the published program's confusion of the images of a batch (`metric_zoo.benchmarks.ablations`); ``per_pixel``
    learns the sampling of every pixel itself instead of predicting it (`metric_zoo.benchmarks.fields`).
    """

    kind: str
    options: dict[str, Any] = {}
    where: str | list[str] | dict[str, str | None] | None = None
    init: Literal["pretrained", "uniform"] = "pretrained"
    freeze_kernels: bool = False
    batch_mixed: bool = False
    per_pixel: Annotated[bool, _SINCE] = False


class SearchConfig(_Strict):
    """Which learning rate? Each of ``lr`` trains ``epochs`` epochs (None: all) on what is not held out; the one with
    the lowest loss on that begins again, with all images."""

    lr: list[Annotated[float, Field(gt=0)]] = Field(min_length=2)
    epochs: int | None = Field(None, ge=1)


class TrainConfig(_Strict):
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

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=1)
    accumulate: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    search: Annotated[SearchConfig | None, _SINCE] = None
    head_lr_scale: float = Field(0.1, ge=0)
    head_regularization: float = Field(0.0, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    milestones: list[Annotated[int, Field(ge=1)]] = []
    decay: float = Field(0.1, gt=0, le=1)
    warmup_epochs: float = Field(0.0, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    ema: float | None = Field(None, gt=0, lt=1)
    precision: Literal["no", "fp16", "bf16"] = "no"
    layout: Literal["contiguous", "channels_last"] = "contiguous"
    compile: bool = False
    num_workers: Annotated[int, _CHANGES_NO_FIGURE, Field(ge=0)] = 0
    checkpoint_minutes: Annotated[float, _CHANGES_NO_FIGURE, Field(gt=0)] = 10.0

    @model_validator(mode="after")
    def _schedule(self) -> TrainConfig:
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError("schedule 'step' and 'milestones' go together")
        return self


class MeasureConfig(_Strict):
    """What is measured beside accuracy.

    Attributes:
        batch_size: of the throughput; one image, and on a GPU as many as fit, are measured too.
        largest_batch_size: where to stop looking for what fits.
        warmup: untimed batches, at first.
        repeats: timed batches at least, and as many more as ``seconds`` hold.
        seconds: that every figure is measured for at least.
        corruptions: also score the test images with noise, blur, rotation and scaling.
    """

    batch_size: int = Field(64, ge=1)
    largest_batch_size: int = Field(4096, ge=1)
    warmup: int = Field(3, ge=0)
    repeats: int = Field(30, ge=3)
    seconds: float = Field(10.0, ge=0)
    corruptions: bool = True


class Recipe(_Strict):
    """The file. Its runs are models x kinds x seeds, and peers x seeds; ``seeds: 5`` is short for 0 to 4.

    ``denoising`` learns to remove noise from images of a data set, ``single-image-denoising`` from one image, of which
    it sees one realisation of the noise and is tested on another. ``peers`` are denoisers that learn nothing here
    (`metric_zoo.benchmarks.peers`).

    ``extends`` names another recipe, a file beside this one or one that comes with the package, whose keys hold where
    this file says nothing: mappings are merged, lists and values replaced.
    """

    name: str
    task: Task = "classification"
    data: DataConfig = DataConfig()
    models: list[ModelConfig] = Field(min_length=1)
    kinds: list[ConvolutionConfig] = Field(min_length=1)
    peers: list[str] = []
    seeds: list[int] = Field([0], min_length=1)
    train: TrainConfig = TrainConfig()
    measure: MeasureConfig = MeasureConfig()

    @model_validator(mode="after")
    def _noise(self) -> Recipe:
        if (self.task == "classification") == (self.data.noise is not None):
            raise ValueError(
                f"task {self.task!r} and data.noise={self.data.noise}: denoising needs one, only denoising"
            )
        if self.peers and self.task == "classification":
            raise ValueError("peers are for denoising")
        if self.data.image is not None and self.task != "single-image-denoising":
            raise ValueError("data.image is for the task single-image-denoising")
        return self


class Run(_Strict):
    """One run of a recipe."""

    recipe: str
    task: Task
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
        return self.identifying()

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
    data = _read(path, ())
    for section, key in (("kinds", "kind"), ("models", "name")):
        if isinstance(data.get(section), list):
            data[section] = [{key: entry} if isinstance(entry, str) else entry for entry in data[section]]
    if isinstance(data.get("seeds"), int) and not isinstance(data["seeds"], bool):
        data["seeds"] = list(range(data["seeds"]))
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"recipe {path}: {_explain(error)}") from None


def find_recipe(name: str, beside: Path = Path()) -> Path:
    """A path (relative ones from ``beside``), or the name of a recipe that comes with the package.

    Raises:
        RecipeError: listing the recipes that come with the package.
    """
    path = beside / Path(name).expanduser()
    if path.is_file():
        return path
    packaged = RECIPES / f"{name}.yaml"
    if packaged.exists() and Path(name).name == name:
        return packaged
    known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
    raise RecipeError(f"recipe {name!r} does not exist; give a YAML file or one of: {known}")


def _read(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    """The keys of a file, over those of the recipe that it extends."""
    if path in children:
        raise RecipeError(f"recipe {path} extends itself, by way of {', '.join(map(str, children[1:])) or 'nothing'}")
    data = _read_yaml(path)
    if "extends" not in data:
        return data
    parent = data.pop("extends")
    if not isinstance(parent, str):
        raise RecipeError(f"recipe {path}: extends: expected the name of a recipe, got {parent!r}")
    return _merged(_read(find_recipe(parent, path.parent), (*children, path)), data)


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(under[key], over[key])
        for key in under.keys() & over.keys()
        if isinstance(under[key], dict) and isinstance(over[key], dict)
    }
    return {**under, **over, **both}


def _read_yaml(path: Path) -> dict[str, Any]:
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
    return data


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
            kind = get_kind(entry.kind)
            kind.config.from_options(entry.kind, entry.options)
        except ValueError as error:
            raise RecipeError(f"recipe {recipe.name!r}: {error}") from None
        has_head = "head" in kind.config.__dataclass_fields__
        if (entry.freeze_kernels and kind.layer is None) or (entry.per_pixel and not has_head):
            flag = "per_pixel" if entry.per_pixel else "freeze_kernels"
            raise RecipeError(f"recipe {recipe.name!r}: kind {entry.kind!r} has no sampling to learn: leave {flag} out")
    accumulate = 1 if recipe.train.accumulate == "auto" else recipe.train.accumulate
    parts = processes * accumulate
    if recipe.train.batch_size % parts:
        raise RecipeError(
            f"recipe {recipe.name!r}: train.batch_size={recipe.train.batch_size} cannot be shared out over "
            f"{processes} processes" + (f" in {accumulate} parts each" if parts > processes else "")
        )
    if recipe.train.precision == "fp16" and device == "cpu":
        raise RecipeError(f"recipe {recipe.name!r}: train.precision='fp16' needs a GPU; on a CPU use 'bf16' or 'no'")
    shared = {"recipe": recipe.name, "task": recipe.task, "data": recipe.data, "train": recipe.train}
    shared |= {"measure": recipe.measure, "processes": processes, "device": device}
    pairs = [(model, kind, seed) for model in recipe.models for seed in recipe.seeds for kind in recipe.kinds]
    peers = [ModelConfig(name=name, source="peer") for name in recipe.peers]
    pairs += [
        (peer, ConvolutionConfig(kind=PEER, options=SETTINGS.get(peer.name, {})), seed)
        for peer in peers
        for seed in recipe.seeds
    ]
    runs = [Run(model=model, kind=kind, seed=seed, **shared) for model, kind, seed in pairs]
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
    section = SearchConfig if parents[:2] == ["train", "search"] else section
    return list(section.model_fields) if section else []
