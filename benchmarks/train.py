"""Train one run, on however many processes there are, from wherever it stopped."""

from __future__ import annotations

import math
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from metric_zoo.benchmarks.checkpoint import Checkpoints
from metric_zoo.benchmarks.data import Augmented, Splits
from metric_zoo.benchmarks.data.batches import TrainingBatches
from metric_zoo.benchmarks.interruption import RESUMABLE, SIGNALS, Interruption
from metric_zoo.benchmarks.log import RunLog
from metric_zoo.benchmarks.memory_fit import micro_batches
from metric_zoo.benchmarks.model import build_model
from metric_zoo.benchmarks.optimization import build_optimizer, moving_average, rate, set_rate
from metric_zoo.benchmarks.recipe import Run
from metric_zoo.benchmarks.record import Epoch, first_problem
from metric_zoo.benchmarks.tasks import Evaluation, get_task
from metric_zoo.errors import DataError, MetricZooError
from metric_zoo.nn import head_regularization

_STEPS_BETWEEN_LOOKS = 20


Seconds = Annotated[float, Field(ge=0, le=1e10)]


@dataclass
class Progress:
    """How far a run is: all that a checkpoint holds beside weights and random numbers."""

    epoch: Annotated[int, Field(ge=0)] = 0
    step: Annotated[int, Field(ge=0)] = 0
    """Steps done of the epoch."""
    sums: Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)] = field(default_factory=lambda: [0.0] * 3)
    """Of the epoch so far, over all processes: losses, right answers, images."""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    epoch_seconds: Seconds = 0.0
    seconds: Seconds = 0.0
    """Of the whole run, before this process began."""
    fingerprint: str = ""
    """Of the data."""
    micro_batches: Annotated[int, Field(ge=1)] = 1
    """Of a step on every process: batch normalisation sees them."""


class Trainer:
    """The training of one run.

    Args:
        run: what to do.
        accelerator: fresh for this run.
        splits: its data.
        checkpoints: folder for them.
        log: of this run.
        position: for the progress bar, such as ``"3/8"``.
    """

    def __init__(
        self,
        run: Run,
        accelerator: Accelerator,
        splits: Splits,
        checkpoints: Path,
        log: RunLog,
        position: str = "",
    ) -> None:
        self.run, self.accelerator, self._splits, self._log = run, accelerator, splits, log
        self._task = get_task(run.task)
        self._label = f"[{position}] {run.label}" if position else run.label
        self.micro_batches = micro_batches(run, accelerator, splits.info)
        set_seed(run.seed)
        model = build_model(run, splits.info)
        if run.train.layout == "channels_last":
            model = model.to(memory_format=torch.channels_last)
        self._data = Augmented(splits.train, run.seed)
        self._load()
        if run.train.compile:
            model.compile()
        self.model, self._optimizer = accelerator.prepare(model, build_optimizer(model, run.train))
        self._average = None
        if run.train.ema is not None:
            self._average = moving_average(self.plain, run.train.ema)
            accelerator.register_for_checkpointing(self._average)
        self._test = self._loader_of(splits.test)  # of every epoch; workers may live on
        self._checkpoints = Checkpoints(checkpoints, accelerator)
        self.progress = Progress(fingerprint=splits.info.fingerprint, micro_batches=self.micro_batches)
        self._started = self._kept = time.monotonic()

    def _load(self) -> None:
        run, accelerator = self.run, self.accelerator
        self._batches = TrainingBatches(
            len(self._splits.train),
            run.train.batch_size,
            run.seed,
            accelerator.process_index,
            accelerator.num_processes,
            self.micro_batches,
        )
        workers = loading(run.train.num_workers, accelerator)
        self._loader = DataLoader(self._data, batch_sampler=self._batches, **workers)

    @property
    def plain(self) -> nn.Module:
        """The network without wrappers."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def scored(self) -> nn.Module:
        """The network to evaluate: the moving average, where the recipe asks for one."""
        return self._average.module if self._average is not None else self.model

    def _loader_of(self, dataset: Dataset) -> DataLoader:
        return evaluation_loader(dataset, self.run, self.accelerator, self.micro_batches)

    def evaluate(self, dataset: Dataset) -> Evaluation:
        """Score a data set by `scored`."""
        return self._evaluate(self._loader_of(dataset), len(dataset))

    def _evaluate(self, loader: DataLoader, size: int) -> Evaluation:
        return self._task.evaluate(self.accelerator, self.scored, loader, size, self.run.train.batch_size)

    def train(self) -> list[Epoch]:
        """All epochs that are left.

        Raises:
            FloatingPointError: if the loss is not finite.
            SystemExit: with `RESUMABLE`, after a checkpoint, when asked to stop.
        """
        self.progress = self._checkpoints.restore(self._checked) or self.progress
        if self.progress.fingerprint != self._splits.info.fingerprint:
            raise DataError(f"the data have changed since {self._label} was stopped: give it the former ones")
        self._go_on_in(self.progress.micro_batches)
        self._started = self._kept = time.monotonic()
        config, main = self.run.train, self.accelerator.is_main_process
        total, done = self._batches.steps * config.epochs, self._global_step
        self._note(f"begins after step {done} of {total}, on {self.accelerator.num_processes} processes")
        interval = 0.1 if sys.stderr.isatty() else 10.0  # a log file needs no line per step
        with (
            Interruption() as interruption,
            tqdm(
                total=total, initial=done, desc=self._label, unit="step", mininterval=interval, disable=not main
            ) as bar,
        ):
            while self.progress.epoch < config.epochs:
                try:
                    self._epoch(bar, interruption)
                    self._finish_epoch(bar)
                except Exception as error:
                    if not interruption.noted:
                        raise
                    self._log.failure(error)  # of something that took the request for itself: no fault of the run
                    sys.exit(RESUMABLE)
                if self._asked_and_due(interruption)[0]:
                    self._stop()
        return [Epoch(**epoch) for epoch in self.progress.epochs]

    def _checked(self, progress: Any) -> Progress:
        """What a checkpoint says, if a run like this can have said it; of other data the steps cannot be told.

        Raises:
            ValueError: if it cannot.
        """
        try:
            found = TypeAdapter(Progress).validate_python(progress)
            found.epochs = [Epoch.model_validate(epoch).model_dump() for epoch in found.epochs]
        except ValidationError as error:
            raise ValueError(first_problem(error)) from None
        steps = found.step if found.fingerprint != self._splits.info.fingerprint else self._batches.steps
        if len(found.epochs) != found.epoch or found.epoch > self.run.train.epochs or found.step > steps:
            raise ValueError(f"its progress, epoch {found.epoch} and step {found.step}, is none of this run")
        return found

    def _go_on_in(self, micro_batches: int) -> None:
        """As many as the run began with: other parts would make another run of it."""
        if micro_batches == self.micro_batches:
            return
        if micro_batches < self.micro_batches:
            raise MetricZooError(
                f"{self._label} began with {micro_batches} micro-batches, the memory now asks for "
                f"{self.micro_batches}: free it, or go on where the run began"
            )
        self.micro_batches = micro_batches
        self._load()

    def timed_epoch(self) -> float:
        """Seconds of one epoch's steps, which nothing else is done with: for measuring the harness itself."""
        start, self._kept = time.monotonic(), math.inf  # no checkpoint is due
        with Interruption() as interruption, tqdm(total=self._batches.steps, disable=None, leave=False) as bar:
            self._epoch(bar, interruption)
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        self.progress = Progress(fingerprint=self._splits.info.fingerprint, micro_batches=self.micro_batches)
        return time.monotonic() - start

    def forget(self) -> None:
        """Remove the checkpoints: the record is written."""
        if self.accelerator.is_main_process:
            self._checkpoints.remove()

    @property
    def _global_step(self) -> int:
        return self.progress.epoch * self._batches.steps + self.progress.step

    def seconds(self) -> float:
        """Of training, in all processes that took part in it one after the other."""
        return self.progress.seconds + time.monotonic() - self._started

    def _epoch(self, bar: tqdm, interruption: Interruption) -> None:
        progress = self.progress
        self._data.set_epoch(progress.epoch)
        self._batches.set_position(progress.epoch, progress.step)
        self.model.train()
        sums, began, parts = self._sums(), time.monotonic() - progress.epoch_seconds, []
        for batch in self._loader:
            parts.append(batch)
            if len(parts) < self.micro_batches:
                continue
            sums += self._step(parts)
            parts = []
            progress.step += 1
            bar.update()
            if progress.step % _STEPS_BETWEEN_LOOKS == 0:
                self._look(sums, bar)
            asked, due = self._asked_and_due(interruption)
            if (asked or due) and progress.step < self._batches.steps:
                progress.sums, progress.epoch_seconds = self._total(sums), time.monotonic() - began
                self._keep()
                if asked:
                    self._stop()
                sums = self._sums()
        progress.sums, progress.epoch_seconds = self._total(sums), time.monotonic() - began

    def _sums(self) -> Tensor:
        """Loss, right answers and images of the epoch so far; what was added up before counts in one process."""
        before = self.progress.sums if self.accelerator.is_main_process else [0.0] * 3
        return torch.tensor(before, dtype=torch.float64, device=self.accelerator.device)

    def _asked_and_due(self, interruption: Interruption) -> tuple[bool, bool]:
        """Whether to stop, and whether a checkpoint is due: by the main process's clock, the same for all."""
        due = time.monotonic() - self._kept > 60 * self.run.train.checkpoint_minutes
        if self.accelerator.num_processes == 1:
            return interruption.noted, due
        flags = torch.tensor([interruption.noted, due and self.accelerator.is_main_process], dtype=torch.float32)
        asked, due = self.accelerator.reduce(flags.to(self.accelerator.device), "sum").tolist()
        return bool(asked), bool(due)

    def _step(self, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
        """One step on this process's micro-batches; loss sum, right answers, images."""
        config, sums = self.run.train, torch.zeros(3, dtype=torch.float64, device=self.accelerator.device)
        set_rate(self._optimizer, rate(config, self._global_step, self._batches.steps))
        self._optimizer.zero_grad()
        for number, (images, labels) in enumerate(parts, 1):
            with self.accelerator.no_sync(self.model) if number < len(parts) else nullcontext():
                sums += self._backward(images, labels, len(parts))
        if config.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self._optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self.plain)
        return sums

    def _backward(self, images: Tensor, labels: Tensor, parts: int) -> Tensor:
        device, config = self.accelerator.device, self.run.train
        layout = torch.channels_last if config.layout == "channels_last" else torch.contiguous_format
        images = images.to(device, non_blocking=True).contiguous(memory_format=layout)
        labels = labels.to(device, non_blocking=True)
        output = self.model(images)
        loss = self._task.loss(output, labels)
        whole = (
            loss + config.head_regularization * head_regularization(self.model) if config.head_regularization else loss
        )
        self.accelerator.backward(whole / parts)
        right = torch.zeros_like(loss) + self._task.right(output, labels)
        images_seen = torch.full_like(loss, len(labels))
        return torch.stack((loss.detach() * len(labels), right.detach(), images_seen)).double()

    def _look(self, sums: Tensor, bar: tqdm) -> None:
        if not math.isfinite(self._total(sums)[0]):  # of all processes, or some would stop without the others
            raise FloatingPointError(f"the training loss is {sums[0]} after step {self._global_step}: lower train.lr")
        loss, right, images = sums.tolist()
        bar.set_postfix(_rounded({"loss": loss / images, **self._task.training(right / images)}), refresh=False)

    def _total(self, sums: Tensor) -> list[float]:
        if self.accelerator.num_processes == 1:
            return sums.tolist()
        return self.accelerator.reduce(sums, "sum").tolist()

    def _finish_epoch(self, bar: tqdm) -> None:
        progress = self.progress
        loss, right, images = progress.sums
        if not math.isfinite(loss):
            raise FloatingPointError(f"the training loss is {loss} after step {self._global_step}: lower train.lr")
        start = time.monotonic()
        synchronize_buffers(self.model, self.accelerator)
        if self._average is not None:
            synchronize_buffers(self.scored, self.accelerator)
        test = self._evaluate(self._test, len(self._splits.test)).scores
        scores = self._task.training(right / images) | self._task.testing(test)
        figures = {"loss": loss / images, **scores}
        bar.set_postfix(epoch=progress.epoch + 1, **_rounded(figures))
        told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self._note(f"epoch {progress.epoch + 1} of {self.run.train.epochs}: {told}")
        progress.epochs.append(
            Epoch(
                epoch=progress.epoch + 1,
                lr=self.run.train.lr * rate(self.run.train, progress.epoch * self._batches.steps, self._batches.steps),
                train_loss=loss / images,
                **scores,
                seconds=progress.epoch_seconds + time.monotonic() - start,
            ).model_dump()
        )
        self.accelerator.log({**figures, "lr": progress.epochs[-1]["lr"]}, step=self._global_step)
        progress.epoch, progress.step, progress.epoch_seconds = progress.epoch + 1, 0, 0.0
        progress.sums = [0.0, 0.0, 0.0]
        self._keep()

    def _keep(self) -> None:
        self._checkpoints.save(self._global_step, {**vars(self.progress), "seconds": self.seconds()})
        self._kept = time.monotonic()

    def _note(self, text: str) -> None:
        if self.accelerator.is_main_process:
            self._log.write(text)

    def _stop(self) -> None:
        self._note(f"stopped after step {self._global_step}")
        if self.accelerator.is_main_process:
            print(f"{self._label}: stopped after step {self._global_step}; the same command goes on", file=sys.stderr)
        sys.exit(RESUMABLE)


def _rounded(figures: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.3g}" for name, value in figures.items()}


def loading(workers: int, accelerator: Accelerator) -> dict[str, Any]:
    """How a `DataLoader` loads."""
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": accelerator.device.type == "cuda",
        "worker_init_fn": ignore_requests,
        "generator": torch.Generator(),  # or every loader draws from the one that dropout uses
    }


def evaluation_loader(dataset: Dataset, run: Run, accelerator: Accelerator, parts: int = 1) -> DataLoader:
    """Of this process's share of a split to evaluate, after training in so many micro-batches."""
    batch_size = max(1, get_task(run.task).evaluation_batch(run, parts) // accelerator.num_processes)
    return accelerator.prepare(DataLoader(dataset, batch_size, **loading(run.train.num_workers, accelerator)))


def ignore_requests(_: int) -> None:
    """In a process that loads data: whoever asks a run to stop often asks its whole group, and only the run decides."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def synchronize_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the main one's running statistics, or they would score different networks."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)
