"""Recipes: which models, kinds and seeds to train on which data, and the runs that follow. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from metric_zoo.benchmarks.mistakes import listed, mistakes
from metric_zoo.benchmarks.peer_settings import options_of
from metric_zoo.benchmarks.recipe_file import read_recipe_file
from metric_zoo.benchmarks.record import MAX_EPOCHS, Tree, Word, config_id, first_problem, record_path
from metric_zoo.errors import RecipeError, suggest

RECIPES = Path(__file__).parent / "recipes"
"""Recipes that come with the package."""
DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""What a model computes in, by ``train.precision``: names in torch."""


Task = Literal["classification", "denoising", "single-image-denoising"]
PEER = "peer"
"""The kind of runs of what is no network with a convolution to convert."""

MAX_SEEDS = MAX_RUNS = 10_000
_MAX_CHAIN = 20
"""Recipes that extend one another."""


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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)

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

    name: Word = "digits"
    root: Annotated[Location | None, _CHANGES_NO_FIGURE] = None
    label: Word | None = None
    image_column: Annotated[Word | None, _SINCE] = None
    label_column: Annotated[Word | None, _SINCE] = None
    image_size: Int | None = Field(None, ge=1, le=2**14)
    channels: Literal[1, 3] | None = None
    augment: Literal["none", "crop-flip", "resized-crop-flip"] = "none"
    skip_unreadable: bool = False
    noise: Annotated[Float | None, _SINCE, Field(gt=0)] = None
    image: Annotated[Location | None, _SINCE] = None


class ModelConfig(_Strict):
    """An architecture: its registry's name, ``source``, constructor ``options``, and what to start from.

    ``metric-zoo`` has the networks of `metric_zoo.benchmarks.single_layer`; ``peer`` is what `Recipe.peers` becomes.

    ``small_image_stem`` gives a ResNet a 3x3 stride-1 stem without max-pool (the paper's setting for small images).
    """

    name: Word
    source: Literal["timm", "torchvision", "metric-zoo", "peer"] = "timm"
    options: Tree = {}
    pretrained: bool = False
    small_image_stem: bool = False


class ConvolutionConfig(_Strict):
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


class SearchConfig(_Strict):
    """Which learning rate? Each of ``lr`` trains ``epochs`` epochs (None: all) on what is not held out; the one with
    the lowest loss on that begins again, with all images."""

    lr: list[Annotated[Float, Field(gt=0)]] = Field(min_length=2, max_length=100)
    epochs: Epochs | None = None


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

    epochs: Epochs = 10
    batch_size: Batch = 64
    accumulate: Batch | Literal["auto"] = 1
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Float = Field(1e-3, gt=0)
    search: Annotated[SearchConfig | None, _SINCE] = None
    head_lr_scale: Float = Field(0.1, ge=0)
    head_regularization: Float = Field(0.0, ge=0)
    weight_decay: Float = Field(1e-4, ge=0)
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    milestones: list[Epochs] = []
    decay: Float = Field(0.1, gt=0, le=1)
    warmup_epochs: Float = Field(0.0, ge=0)
    clip_norm: Float | None = Field(None, gt=0)
    ema: Float | None = Field(None, gt=0, lt=1)
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

    batch_size: Batch = 64
    largest_batch_size: Batch = 4096
    warmup: Int = Field(3, ge=0, le=10**6)
    repeats: Int = Field(30, ge=3, le=10**6)
    seconds: Float = Field(10.0, ge=0)
    corruptions: bool = True


class Recipe(_Strict):
    """The file. Its runs are models x kinds x seeds, and peers x seeds; ``seeds: 5`` is short for 0 to 4.

    ``denoising`` learns to remove noise from images of a data set, ``single-image-denoising`` from one image, of which
    it sees one realisation of the noise and is tested on another. ``peers`` are denoisers that learn nothing here
    (`metric_zoo.benchmarks.peers`).

    ``extends`` names another recipe, a file beside this one or one that comes with the package, whose keys hold where
    this file says nothing: mappings are merged, lists and values replaced.
    """

    name: Word
    task: Task = "classification"
    data: DataConfig = DataConfig()
    models: list[ModelConfig] = Field(min_length=1)
    kinds: list[ConvolutionConfig] = Field(min_length=1)
    peers: list[Word] = []
    seeds: list[Seed] = Field([0], min_length=1, max_length=MAX_SEEDS)
    train: TrainConfig = TrainConfig()
    measure: MeasureConfig = MeasureConfig()

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, seeds: Any) -> Any:
        if type(seeds) is not int:
            return seeds
        if not 1 <= seeds <= MAX_SEEDS:
            raise ValueError(f"expected how many, 1 to {MAX_SEEDS:,}, or a list of them")
        return list(range(seeds))

    @model_validator(mode="after")
    def _bounded(self) -> Recipe:
        count = (len(self.models) * len(self.kinds) + len(self.peers)) * len(self.seeds)
        if count > MAX_RUNS:
            raise ValueError(f"models, kinds and seeds make {count:,} runs, a recipe has at most {MAX_RUNS:,}")
        return self

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

    recipe: Word
    task: Task
    data: DataConfig
    model: ModelConfig
    kind: ConvolutionConfig
    seed: Seed
    train: TrainConfig
    measure: MeasureConfig
    processes: Int = Field(1, ge=1)
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
        RecipeError: if the file cannot be read, is not YAML, or with all keys and values that are wrong.
    """
    data = _read(path, ())
    for section, key in (("kinds", "kind"), ("models", "name")):
        if isinstance(data.get(section), list):
            data[section] = [{key: entry} if isinstance(entry, str) else entry for entry in data[section]]
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems = mistakes(error, data, Recipe)
        raise RecipeError(listed(f"recipe {path}", problems + _kind_problems(_whole_kinds(data)))) from None


def _whole_kinds(data: dict[str, Any]) -> dict[int, ConvolutionConfig]:
    """Those, by their place, that have the right form where other parts of the recipe have not."""
    found = {}
    for number, entry in enumerate(data["kinds"] if isinstance(data.get("kinds"), list) else []):
        try:
            found[number] = ConvolutionConfig.model_validate(entry)
        except ValidationError:
            continue
    return found


def find_recipe(name: str, beside: Path = Path()) -> Path:
    """A path (relative ones from ``beside``), or the name of a recipe that comes with the package.

    Raises:
        RecipeError: listing the recipes that come with the package.
    """
    path = beside / os.path.expanduser(name)
    if os.path.isfile(path):
        return path
    known = sorted(p.stem for p in RECIPES.glob("*.yaml"))
    if name in known:
        return RECIPES / f"{name}.yaml"
    what = "is no regular file" if name and os.path.exists(path) else "does not exist"
    raise RecipeError(
        f"recipe {name!r:.80} {what}{suggest(name[:80], known)}; give a YAML file or one of: {', '.join(known)}"
    )


def _read(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    """The keys of a file, over those of the recipe that it extends."""
    place = Path(os.path.realpath(path))  # a cycle may come by ever other names
    if place in children:
        raise RecipeError(f"recipe {path} extends itself, by way of {', '.join(p.name for p in children)}")
    if len(children) == _MAX_CHAIN:
        raise RecipeError(f"recipe {children[0]}: more than {_MAX_CHAIN} recipes extend one another")
    data = read_recipe_file(path)
    if "extends" not in data:
        return data
    parent = data.pop("extends")
    if not isinstance(parent, str):
        raise RecipeError(f"recipe {path}: extends: expected the name of a recipe, got {parent!r:.80}")
    return _merged(_read(find_recipe(parent, path.parent), (*children, place)), data)


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(under[key], over[key])
        for key in under.keys() & over.keys()
        if isinstance(under[key], dict) and isinstance(over[key], dict)
    }
    return {**under, **over, **both}


def expand(recipe: Recipe, processes: int = 1, device: str = "cpu") -> list[Run]:
    """The runs of a recipe: every model, kind and seed; twins (equal in everything) once.

    Args:
        recipe: from `load_recipe`.
        processes: that will train each run together.
        device: type of device they use, ``"cpu"`` or ``"cuda"``.

    Raises:
        RecipeError: for a kind that does not exist, or options it does not take, and what processes or device cannot
            do; all of it.
    """
    if processes < 1:
        raise RecipeError(f"num-processes is {processes}, expected at least 1")
    problems = _kind_problems(dict(enumerate(recipe.kinds))) + _training_problems(recipe.train, processes, device)
    if problems:
        raise RecipeError(listed(f"recipe {recipe.name!r}", problems))
    shared = {"recipe": recipe.name, "task": recipe.task, "data": recipe.data, "train": recipe.train}
    shared |= {"measure": recipe.measure, "processes": processes, "device": device}
    pairs = [(model, kind, seed) for model in recipe.models for seed in recipe.seeds for kind in recipe.kinds]
    peers = [ModelConfig(name=name, source="peer") for name in recipe.peers]
    pairs += [
        (peer, ConvolutionConfig(kind=PEER, options=options_of(peer.name)), seed)
        for peer in peers
        for seed in recipe.seeds
    ]
    runs = [Run(model=model, kind=kind, seed=seed, **shared) for model, kind, seed in pairs]
    for run in runs:
        _check_config(run)
    return list({run.id: run for run in runs}.values())


def _kind_problems(kinds: dict[int, ConvolutionConfig]) -> list[str]:
    """What is wrong with a recipe's kinds, by their place."""
    from metric_zoo.nn.registry import get_kind

    problems = []
    for number, entry in kinds.items():
        try:
            kind = get_kind(entry.kind)
            kind.conversion.from_options(entry.kind, entry.options)
        except ValueError as error:
            problems.append(f"kinds.{number}: {error!s:.500}")
            continue
        has_head = "head" in kind.config.__dataclass_fields__
        if (entry.freeze_kernels and kind.layer is None) or (entry.per_pixel and not has_head):
            flag = "per_pixel" if entry.per_pixel else "freeze_kernels"
            problems.append(f"kinds.{number}: kind {entry.kind!r} has no sampling to learn: leave {flag} out")
    return problems


def _training_problems(train: TrainConfig, processes: int, device: str) -> list[str]:
    problems = []
    accumulate = 1 if train.accumulate == "auto" else train.accumulate
    if train.batch_size % (processes * accumulate):
        problems.append(
            f"train.batch_size={train.batch_size} cannot be shared out over {processes} processes"
            + (f" in {accumulate} parts each" if accumulate > 1 else "")
        )
    if train.precision == "fp16" and device == "cpu":
        problems.append("train.precision='fp16' needs a GPU; on a CPU use 'bf16' or 'no'")
    return problems


_TREE = TypeAdapter(Tree)


def _check_config(run: Run) -> None:
    """Each part may be short enough, and the whole be too long for a record."""
    try:
        _TREE.validate_python(run.config)
    except ValidationError as error:
        raise RecipeError(f"recipe {run.recipe!r}, {run.label}: its configuration: {first_problem(error)}") from None
