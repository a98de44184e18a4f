"""Train and evaluate one run, on however many processes there are."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from metric_zoo.benchmarks import measure
from metric_zoo.benchmarks.data import Splits, load_data
from metric_zoo.benchmarks.model import build_model
from metric_zoo.benchmarks.provenance import Clock, provenance
from metric_zoo.benchmarks.recipe import Run, TrainConfig
from metric_zoo.benchmarks.record import Epoch, Record
from metric_zoo.benchmarks.tasks.classification import evaluate, hits, logits_of
from metric_zoo.errors import RecipeError
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.groups import head_regularization, parameter_groups

_EVAL_BATCH = 256


@dataclass
class _Loaders:
    train: DataLoader
    train_clean: DataLoader
    test: DataLoader


def execute(run: Run, accelerator: Accelerator, position: str = "") -> Record:
    """Train, evaluate and measure one run.

    Args:
        run: what to do.
        accelerator: fresh for this run.
        position: for the progress bar, such as ``"3/8"``.

    Returns:
        A record with status ``"ok"``; identical on every process but for what only the main one measures.

    Raises:
        MetricZooError: if data or model cannot be had; FloatingPointError if the loss is not finite.
    """
    clock = Clock()
    measure.reset_peak_memory()
    splits = load_data(run.data)
    set_seed(run.seed)
    model = build_model(run, splits.info)
    optimizer = build_optimizer(model, run.train)
    loaders = _loaders(splits, run.train, accelerator.num_processes)
    parts = (model, optimizer, loaders.train, loaders.train_clean, loaders.test)
    model, optimizer, *prepared = accelerator.prepare(*parts)
    loaders = _Loaders(*prepared)
    epochs = _train(run, accelerator, model, optimizer, loaders, splits, position)
    peak = measure.peak_memory_mib(accelerator.device)
    train = evaluate(accelerator, model, loaders.train_clean, splits.info.train_size)
    test = evaluate(accelerator, model, loaders.test, splits.info.test_size)
    plain = accelerator.unwrap_model(model)
    figures = _measure(run, accelerator, plain, splits) if accelerator.is_main_process else {}
    accelerator.wait_for_everyone()
    return Record(
        **identity(run),
        status="ok",
        dataset=splits.info,
        converted_layers=sum(isinstance(m, SampledConv2d) for m in plain.modules()),
        parameters=measure.count_parameters(plain),
        train=train,
        test=test,
        generalization_gap=train.top1 - test.top1,
        epochs=epochs,
        peak_memory_mib=peak,
        wall_seconds=clock.seconds(),
        provenance=provenance(clock.started),
        **figures,
    )


def identity(run: Run) -> dict:
    """The fields of a record that say which run it is, whatever became of it."""
    return {
        "id": run.id,
        "recipe": run.recipe,
        "task": run.task,
        "model": run.model.name,
        "source": run.model.source,
        "weights": "pretrained" if run.model.pretrained else None,
        "kind": run.kind.kind,
        "options": run.kind.options,
        "seed": run.seed,
        "world_size": run.processes,
        "device": torch.cuda.get_device_name() if run.device == "cuda" else run.device,
        "config": run.config,
    }


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The recipe's optimiser; sampling heads learn at ``head_lr_scale`` of the rate."""
    groups = parameter_groups(model, config.lr, config.head_lr_scale)
    for group in groups:
        group.pop("name")
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    cls = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return cls(groups, lr=config.lr, weight_decay=config.weight_decay)


def _loaders(splits: Splits, config: TrainConfig, processes: int) -> _Loaders:
    size = config.batch_size // processes
    if len(splits.train) < config.batch_size:
        raise RecipeError(f"train.batch_size={config.batch_size} exceeds the {len(splits.train)} training images")
    workers = {"num_workers": config.num_workers, "persistent_workers": config.num_workers > 0}
    return _Loaders(
        DataLoader(splits.train, size, shuffle=True, drop_last=True, **workers),
        DataLoader(splits.train_clean, _EVAL_BATCH // processes, **workers),
        DataLoader(splits.test, _EVAL_BATCH // processes, **workers),
    )


def _train(
    run: Run,
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loaders: _Loaders,
    splits: Splits,
    position: str,
) -> list[Epoch]:
    steps = len(loaders.train) * run.train.epochs
    # Stepped by hand, once per global step: accelerate's wrapper would step once per process.
    schedule = torch.optim.lr_scheduler.LambdaLR(getattr(optimizer, "optimizer", optimizer), _rate(run.train, steps))
    epochs: list[Epoch] = []
    label = f"[{position}] {run.label}" if position else run.label
    interval = 0.1 if sys.stderr.isatty() else 10.0  # a log file needs no line per step
    with tqdm(
        total=steps, desc=label, unit="step", mininterval=interval, disable=not accelerator.is_main_process
    ) as bar:
        for number in range(1, run.train.epochs + 1):
            start, rate = time.perf_counter(), schedule.get_last_lr()[0]
            penalty = run.train.head_regularization
            loss, top1 = _train_epoch(accelerator, model, optimizer, schedule, loaders.train, bar, penalty)
            synchronize_buffers(model, accelerator)
            test = evaluate(accelerator, model, loaders.test, splits.info.test_size)
            bar.set_postfix(epoch=number, loss=f"{loss:.3f}", accuracy=f"{top1:.3f}", test=f"{test.top1:.3f}")
            epochs.append(
                Epoch(
                    epoch=number,
                    lr=rate,
                    train_loss=loss,
                    train_top1=top1,
                    test_top1=test.top1,
                    seconds=time.perf_counter() - start,
                )
            )
    return epochs


def _train_epoch(accelerator, model, optimizer, schedule, loader, bar, penalty: float) -> tuple[float, float]:
    """One pass; returns mean cross-entropy and accuracy over all processes' batches."""
    model.train()
    sums = torch.zeros(3, device=accelerator.device)
    for images, labels in loader:
        optimizer.zero_grad()
        logits = logits_of(model(images)).float()
        loss = F.cross_entropy(logits, labels)
        accelerator.backward(loss + penalty * head_regularization(model) if penalty else loss)
        optimizer.step()
        schedule.step()
        correct = hits(logits.detach(), labels, 1).sum()
        sums += torch.stack((loss.detach() * len(labels), correct.float(), loss.new_tensor(len(labels))))
        bar.update()
        if bar.n % 10 == 0:
            bar.set_postfix(loss=f"{sums[0] / sums[2]:.3f}", accuracy=f"{sums[1] / sums[2]:.3f}", refresh=False)
    total_loss, total_correct, images_seen = accelerator.reduce(sums, "sum").tolist()
    if not math.isfinite(total_loss):
        raise FloatingPointError(f"the training loss is {total_loss} after step {bar.n}: lower train.lr")
    return total_loss / images_seen, total_correct / images_seen


def synchronize_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the main one's running statistics, or they would score different networks."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _rate(config: TrainConfig, steps: int):
    if config.schedule == "constant":
        return lambda step: 1.0
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))


def _measure(run: Run, accelerator: Accelerator, model: nn.Module, splits: Splits) -> dict:
    """What one process measures alone, while the others wait. It ends with training steps."""
    count = min(run.measure.batch_size, len(splits.train_clean))
    rows = [splits.train_clean[i] for i in range(count)]
    images = torch.stack([image for image, _ in rows]).to(accelerator.device)
    labels = torch.as_tensor([int(label) for _, label in rows], device=accelerator.device)
    dtype = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}[run.train.precision]
    optimizer = build_optimizer(model, run.train)
    return {
        "gflops": measure.gflops(model, images[:1]),
        "inference": measure.inference_throughput(model, images, run.measure, dtype),
        "latency_ms": measure.latency(model, images, run.measure),
        "training": measure.training_throughput(model, images, labels, optimizer, run.measure, dtype),
    }
