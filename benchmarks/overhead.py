"""What the harness costs: its training steps beside those of a plain PyTorch loop, in turns."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from metric_zoo.benchmarks.data import Splits
from metric_zoo.benchmarks.log import RunLog
from metric_zoo.benchmarks.model import build_model
from metric_zoo.benchmarks.optimization import build_optimizer
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.recipe_sections import TrainConfig
from metric_zoo.benchmarks.runs import Run, expand
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.benchmarks.train import Trainer
from metric_zoo.errors import MetricZooError
from metric_zoo.timing import quartiles


def measure_overhead(recipe: Path, rounds: int = 7, cpu: bool = False) -> str:
    """Seconds of an epoch's steps of a recipe's first run, in the harness and in a plain loop with the same loading.

    And how many images a second the loading alone yields.

    Args:
        recipe: its data set decides how long it takes.
        rounds: epochs of each, one after the other; one more before does not count.
        cpu: do not use an accelerator.

    Raises:
        MetricZooError: if the recipe is wrong, the data are missing, or rounds are too few.
    """
    if rounds < 2:
        raise MetricZooError(f"rounds={rounds}: at least 2, or there are no quartiles")
    device = "cuda" if not cpu and torch.cuda.is_available() else "cpu"
    run = expand(load_recipe(recipe), device=device)[0]
    _check_plain(run)
    splits = get_task(run.task).training().load(run)
    accelerator = Accelerator(cpu=cpu, mixed_precision=run.train.precision)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(run, accelerator, splits, Path(folder), RunLog(Path(folder) / "log"))
        plain = _Plain(run, splits, accelerator.device)
        epochs = {"harness": trainer.timed_epoch, "plain loop": plain.timed_epoch, "loading alone": plain.timed_loading}
        times: dict[str, list[float]] = {name: [] for name in epochs}
        for number in range(rounds + 1):
            for name, epoch in epochs.items():
                seconds = epoch()
                if number:
                    times[name].append(seconds)
    rows = {name: quartiles(values) for name, values in times.items()}
    lines = [f"{name}: {median:.2f} s ({low:.2f} to {high:.2f})" for name, (low, median, high) in rows.items()]
    ratio = rows["harness"][1] / rows["plain loop"][1]
    steps = len(splits.train) // run.train.batch_size
    rate = steps * run.train.batch_size / rows["loading alone"][1]
    title = f"{run.label}, {steps} steps of {run.train.batch_size} images, {device}"
    return "\n".join([title, *lines, f"ratio: {ratio:.3f}", f"loading: {rate:,.0f} images/s"])


def _check_plain(run: Run) -> None:
    """Both loops must do the same."""
    given = run.train.model_dump()
    other = [name for name, value in _PLAIN.items() if given[name] != value]
    if other:
        raise MetricZooError(f"train.{other[0]}={given[other[0]]!r}: the plain loop has none; leave it out to compare")


_PLAIN = TrainConfig().model_dump(
    include={"accumulate", "precision", "layout", "compile", "clip_norm", "ema", "head_regularization"}
)


class _Plain:
    """What a tutorial would write."""

    def __init__(self, run: Run, splits: Splits, device: torch.device) -> None:
        self._device, self._task = device, get_task(run.task).training()
        self._model = build_model(run, splits.info).to(device)
        self._optimizer = build_optimizer(self._model, run.train)
        config, images = run.train, cast(Dataset, splits.train)
        self._loader = DataLoader(
            images, config.batch_size, shuffle=True, drop_last=True, num_workers=config.num_workers
        )

    def timed_loading(self) -> float:
        start = time.perf_counter()
        for _ in self._loader:
            pass
        return time.perf_counter() - start

    def timed_epoch(self) -> float:
        self._model.train()
        start = time.perf_counter()
        for images, targets in self._loader:
            images, targets = images.to(self._device), targets.to(self._device)
            self._optimizer.zero_grad()
            self._task.loss(self._model(images), targets).backward()
            self._optimizer.step()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start
