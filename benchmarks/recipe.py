"""Recipes: which models, kinds and seeds to train on which data. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from metric_zoo.benchmarks.learners import PEER
from metric_zoo.benchmarks.mistakes import listed, mistakes
from metric_zoo.benchmarks.recipe_file import read_recipe_file
from metric_zoo.benchmarks.recipe_sections import (
    MAX_RUNS,
    MAX_SEEDS,
    ConvolutionConfig,
    DataConfig,
    MeasureConfig,
    ModelConfig,
    Section,
    Seed,
    TrainConfig,
)
from metric_zoo.benchmarks.schema import Word
from metric_zoo.benchmarks.tasks import TaskName, default_task, get_task
from metric_zoo.benchmarks.tasks.registry import all_tasks
from metric_zoo.errors import RecipeError, suggest

RECIPES = Path(__file__).parent / "recipes"
"""Recipes that come with the package."""
_MAX_CHAIN = 20
"""Recipes that extend one another."""


class Recipe(Section):
    """The file. Its runs are models x kinds x seeds, and peers x seeds; ``seeds: 5`` is short for 0 to 4.

    ``task`` is one of `metric_zoo.benchmarks.tasks`: ``denoising`` learns to remove noise from images of a data set,
    ``single-image-denoising`` from one image, of which it sees one realisation of the noise and is tested on another.
    ``peers`` are denoisers that learn nothing here (`metric_zoo.benchmarks.peers`).

    ``extends`` names another recipe, a file beside this one or one that comes with the package, whose keys hold where
    this file says nothing: mappings are merged, lists and values replaced.
    """

    name: Word
    task: TaskName = Field(default_factory=default_task)
    data: DataConfig = DataConfig()
    models: list[ModelConfig] = Field(min_length=1)
    kinds: list[ConvolutionConfig] = Field(min_length=1)
    peers: list[Word] = Field(default=[])
    seeds: list[Seed] = Field(default=[0], min_length=1, max_length=MAX_SEEDS)
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
    def _fitting(self) -> Recipe:
        """What only some tasks take, or need."""
        task = get_task(self.task)
        if task.needs_noise != (self.data.noise is not None):
            needing = _tasks("needs_noise")
            raise ValueError(f"task {self.task!r} and data.noise={self.data.noise}: {needing} need one, no others do")
        if self.peers and not task.takes_peers:
            raise ValueError(f"peers are for the task {_tasks('takes_peers')}")
        if self.data.image is not None and not task.takes_image:
            raise ValueError(f"data.image is for the task {_tasks('takes_image')}")
        if any(model.source == PEER.kind for model in self.models):
            raise ValueError(f"models: {PEER.kind!r} is no source of networks; name peers in 'peers'")
        return self


def _tasks(property: str) -> str:
    """Those that have it."""
    return " or ".join(task.name for task in all_tasks() if getattr(task, property))


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
        raise RecipeError(listed(f"recipe {path}", problems + kind_problems(_whole_kinds(data)))) from None


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


def kind_problems(kinds: dict[int, ConvolutionConfig]) -> list[str]:
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
