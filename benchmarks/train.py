"""Train one run, on however many processes there are, from wherever it stopped."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from metric_zoo.benchmarks.checkpoint import Checkpoints
from metric_zoo.benchmarks.data.batches import TrainingBatches
from metric_zoo.benchmarks.data.splits import Augmented, Splits
from metric_zoo.benchmarks.interruption import RESUMABLE, Interruption
from metric_zoo.benchmarks.learning import Learning
from metric_zoo.benchmarks.loading import loading
from metric_zoo.benchmarks.log import RunLog
from metric_zoo.benchmarks.memory_fit import micro_batches
from metric_zoo.benchmarks.model import build_model
from metric_zoo.benchmarks.optimization import rate
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.sampling import SamplingWatch
from metric_zoo.benchmarks.schema import Epoch
from metric_zoo.benchmarks.training_state import Progress, checked
from metric_zoo.benchmarks.training_step import Stepper
from metric_zoo.errors import DataError, MetricZooError

_STEPS_BETWEEN_LOOKS = 20


class Trainer(Learning):
    """The training of one run.

    Args:
        run: what to do.
        accelerator: fresh for this run.
        splits: its data.
        checkpoints: folder for them.
        log: of this run.
        position: for the progress bar, such as ``"3/8"``.
    """

    micro_batches: int

    def __init__(
        self,
        run: Run,
        accelerator: Accelerator,
        splits: Splits,
        checkpoints: Path,
        log: RunLog,
        position: str = "",
    ) -> None:
        super().__init__(run, accelerator)
        self._splits, self._log = splits, log
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
        self._stepper = Stepper(model, run.train, self._scoring, accelerator)
        self._test = self._loader_of(splits.test)  # of every epoch; workers may live on
        self._watch = SamplingWatch(self.plain, run, accelerator, splits.test, log)
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
        return self._stepper.plain

    @property
    def scored(self) -> nn.Module:
        return self._stepper.scored

    def train(self) -> list[Epoch]:
        """All epochs that are left.

        Raises:
            FloatingPointError: if the loss is not finite.
            SystemExit: with `RESUMABLE`, after a checkpoint, when asked to stop.
        """
        self._restore()
        self._started = self._kept = time.monotonic()
        total, done = self._batches.steps * self.run.train.epochs, self._global_step
        self._note(f"begins after step {done} of {total}, on {self.accelerator.num_processes} processes")
        interval = 0.1 if sys.stderr.isatty() else 10.0  # a log file needs no line per step
        shown = {"disable": not self.accelerator.is_main_process, "mininterval": interval, "unit": "step"}
        with Interruption() as interruption, tqdm(total=total, initial=done, desc=self._label, **shown) as bar:
            while self.progress.epoch < self.run.train.epochs:
                self._whole_epoch(bar, interruption)
                if self._asked_and_due(interruption)[0]:
                    self._stop()
        return [self.task.epoch(**epoch) for epoch in self.progress.epochs]

    def _restore(self) -> None:
        self.progress = self._checkpoints.restore(self._checked) or self.progress
        if self.progress.fingerprint != self._splits.info.fingerprint:
            raise DataError(f"the data have changed since {self._label} was stopped: give it the former ones")
        self._go_on_in(self.progress.micro_batches)

    def _checked(self, progress: Any) -> Progress:
        of_this = self.run.train.epochs, self._batches.steps, self._splits.info.fingerprint
        return checked(progress, self.task.epoch, *of_this)

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
        if self.accelerator.is_main_process:
            self._checkpoints.remove()

    @property
    def _global_step(self) -> int:
        return self.progress.epoch * self._batches.steps + self.progress.step

    def _seconds(self) -> float:
        """Of training, in all processes that took part in it one after the other."""
        return self.progress.seconds + time.monotonic() - self._started

    def _whole_epoch(self, bar: tqdm, interruption: Interruption) -> None:
        try:
            self._epoch(bar, interruption)
            self._finish_epoch(bar)
        except Exception as error:
            if not interruption.noted:
                raise
            self._log.failure(error)  # of something that took the request for itself: no fault of the run
            sys.exit(RESUMABLE)

    def _epoch(self, bar: tqdm, interruption: Interruption) -> None:
        progress = self.progress
        self._data.set_epoch(progress.epoch)
        self._batches.set_position(progress.epoch, progress.step)
        self._stepper.model.train()
        sums, began, parts = self._sums(), time.monotonic() - progress.epoch_seconds, []
        for batch in self._loader:
            parts.append(batch)
            if len(parts) < self.micro_batches:
                continue
            sums += self._stepper.step(parts, self._global_step, self._batches.steps)
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
        asked, due = self._total(flags.to(self.accelerator.device))
        return bool(asked), bool(due)

    def _look(self, sums: Tensor, bar: tqdm) -> None:
        self._check_finite(self._total(sums)[0])  # of all processes, or some would stop without the others
        loss, right, images = sums.tolist()
        bar.set_postfix(_rounded({"loss": loss / images, **self.task.trained(right / images)}), refresh=False)

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(f"the training loss is {loss} after step {self._global_step}: lower train.lr")

    def _total(self, sums: Tensor) -> list[float]:
        if self.accelerator.num_processes == 1:
            return sums.tolist()
        return cast(Tensor, self.accelerator.reduce(sums, "sum")).tolist()

    def _finish_epoch(self, bar: tqdm) -> None:
        progress, config = self.progress, self.run.train
        loss, right, images = progress.sums
        self._check_finite(loss)
        start = time.monotonic()
        self._stepper.synchronize_buffers()
        test = self._evaluate(self._test, len(self._splits.test)).scores
        scores = self.task.trained(right / images) | self.task.tested(test)
        figures = {"loss": loss / images, **scores}
        bar.set_postfix(None, True, epoch=progress.epoch + 1, **_rounded(figures))
        told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self._note(f"epoch {progress.epoch + 1} of {config.epochs}: {told}")
        epoch = self.task.epoch(
            epoch=progress.epoch + 1,
            lr=config.lr * rate(config, progress.epoch * self._batches.steps, self._batches.steps),
            train_loss=loss / images,
            **scores,
            seconds=progress.epoch_seconds + time.monotonic() - start,
        )
        progress.epochs.append(epoch.model_dump())
        self.accelerator.log({**figures, "lr": epoch.lr}, step=self._global_step)
        self._watch.look(progress.epoch + 1)
        progress.begin_epoch()
        self._keep()

    def _keep(self) -> None:
        self._checkpoints.save(self._global_step, {**vars(self.progress), "seconds": self._seconds()})
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
