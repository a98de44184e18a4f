"""Which learning rate? Tried on training images that are held out for it, never on test images."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from pydantic import FiniteFloat, TypeAdapter
from torch.utils.data import Dataset, Subset

from metric_zoo.benchmarks.data import Splits
from metric_zoo.benchmarks.log import RunLog
from metric_zoo.benchmarks.provenance import Clock
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.train import Trainer
from metric_zoo.benchmarks.training_state import Seconds
from metric_zoo.files import replacing
from metric_zoo.reading import read_json

FOLDER = "search"
"""In that of a run's checkpoints."""
_LONGEST = 2**20
"""Bytes of the file of the losses so far."""
_LOSSES, _SECONDS = TypeAdapter(dict[str, FiniteFloat | None]), TypeAdapter(Seconds)


@dataclass(frozen=True)
class Search:
    """The loss of every rate, and how long processes that were stopped had searched."""

    losses: dict[str, float | None]
    seconds_before: float


def search_rate(
    run: Run, accelerator: Accelerator, splits: Splits, checkpoints: Path, log: RunLog, position: str = ""
) -> Search:
    """The loss on held-out images after training with each of the recipe's learning rates, by rate; None where the
    training's was not finite. What was tried before a run was stopped counts, if the data are the same.

    Raises:
        SystemExit: with `RESUMABLE`, when asked to stop.
    """
    search, held, folder = run.train.search, held_out(splits), checkpoints / FOLDER
    assert search is not None, "the recipe asks for one"
    known = folder / f"losses-{splits.info.fingerprint[:16]}.json"
    kept, clock = _kept(known), Clock()
    losses = dict(kept.losses)
    for rate in dict.fromkeys(search.lr):
        name = repr(rate)
        if name in losses:
            continue
        trial = with_rate(run, rate, search.epochs)
        # Of its own: an accelerator keeps, and saves, every network that it ever prepared.
        fresh = Accelerator(cpu=accelerator.device.type == "cpu", mixed_precision=run.train.precision)
        trainer = Trainer(trial, fresh, held, folder / name, log, f"{position}, lr {name}".lstrip(", "))
        losses[name] = _loss(trainer, held)
        if accelerator.is_main_process:
            log.write(f"learning rate {name}: held-out loss {losses[name]}")
            with replacing(known) as temporary:
                seconds = kept.seconds_before + clock.seconds()
                temporary.write_text(json.dumps({"losses": losses, "seconds": seconds}), encoding="utf-8")
        accelerator.wait_for_everyone()
        trainer.forget()
        fresh.free_memory()
    return Search(losses, kept.seconds_before)


def _kept(path: Path) -> Search:
    """What was tried before; nothing where its file is damaged."""
    try:
        found = read_json(path, _LONGEST)
        losses, seconds = _LOSSES.validate_python(found["losses"]), _SECONDS.validate_python(found["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return Search({}, 0.0)
    return Search(losses, seconds)


def _loss(trainer: Trainer, held: Splits) -> float | None:
    try:
        trainer.train()
        return getattr(trainer.evaluate(held.test).scores, trainer.task.error)
    except FloatingPointError:
        return None


def best_rate(losses: dict[str, float | None]) -> float:
    """That of the lowest loss.

    Raises:
        FloatingPointError: if none was finite.
    """
    finite = {rate: loss for rate, loss in losses.items() if loss is not None}
    if not finite:
        raise FloatingPointError(f"the training loss was not finite with any learning rate of {', '.join(losses)}")
    return float(min(finite, key=finite.__getitem__))


def with_rate(run: Run, rate: float, epochs: int | None = None) -> Run:
    """The run with one learning rate, and perhaps other epochs."""
    changes = {"lr": rate, "search": None, "epochs": epochs or run.train.epochs}
    return run.model_copy(update={"train": run.train.model_copy(update=changes)})


def held_out_count(images: int) -> int:
    """Of so many training images."""
    return max(1, images // 10)


def held_out(splits: Splits) -> Splits:
    """A tenth of the training images instead of the test images, always the same ones; or what the data set has for
    it."""
    if splits.validation is not None:
        return replace(splits, test=splits.validation)
    count = len(splits.train)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    held, rest = order[: held_out_count(count)], order[held_out_count(count) :]
    train, clean = cast(Dataset, splits.train), cast(Dataset, splits.train_clean)
    return Splits(
        Subset(train, rest),
        Subset(clean, rest),
        Subset(clean, held),
        splits.info.model_copy(update={"train_size": len(rest), "test_size": len(held)}),
    )
