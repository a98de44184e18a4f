"""The runs that follow from a recipe, and what identifies each. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from metric_zoo.benchmarks.learners import LEARNERS, Learner, learner_of
from metric_zoo.benchmarks.mistakes import listed
from metric_zoo.benchmarks.recipe import Recipe, kind_problems
from metric_zoo.benchmarks.recipe_sections import (
    ConvolutionConfig,
    DataConfig,
    Int,
    MeasureConfig,
    ModelConfig,
    Section,
    Seed,
    TrainConfig,
    kind_told,
)
from metric_zoo.benchmarks.record import config_id, record_path
from metric_zoo.benchmarks.schema import Tree, Word, first_problem
from metric_zoo.benchmarks.tasks import TaskName
from metric_zoo.errors import RecipeError


class Run(Section):
    """One run of a recipe."""

    recipe: Word
    task: TaskName
    data: DataConfig
    model: ModelConfig
    convolution: ConvolutionConfig = Field(alias="kind")
    seed: Seed
    train: TrainConfig
    measure: MeasureConfig
    processes: Int = Field(default=1, ge=1)
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
    def learner(self) -> Learner:
        """What learns, or is tuned, in it."""
        return learner_of(self.convolution.kind)

    @property
    def label(self) -> str:
        """For a progress bar: ``resnet10t metric seed 0``, ``resnet10t snake (axis=y) seed 0``."""
        convolution = self.convolution
        kind = kind_told(convolution.kind, convolution.options, convolution.model_dump())
        return f"{self.model.name} {kind} seed {self.seed}"

    def path(self, folder: Path) -> Path:
        """Where its record lies."""
        return record_path(folder, self.model.name, self.convolution.kind, self.seed, self.id)


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
    problems = kind_problems(dict(enumerate(recipe.kinds))) + _training_problems(recipe.train, processes, device)
    if problems:
        raise RecipeError(listed(f"recipe {recipe.name!r}", problems))
    shared = {"recipe": recipe.name, "task": recipe.task, "data": recipe.data, "train": recipe.train}
    shared |= {"measure": recipe.measure, "processes": processes, "device": device}
    runs = [Run(**shared, **own) for learner in LEARNERS for own in learner.runs(recipe)]
    for run in runs:
        _check_config(run)
    return list({run.id: run for run in runs}.values())


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
