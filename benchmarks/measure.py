"""Parameters, GFLOPs, throughput, latency and peak memory of a model."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from metric_zoo.benchmarks.energy import gpu_joules
from metric_zoo.benchmarks.recipe_sections import MeasureConfig
from metric_zoo.benchmarks.schema import Latency, Parameters, Throughput
from metric_zoo.benchmarks.tasks.answers import logits_of
from metric_zoo.nn.training import head_parameters


def count_parameters(model: nn.Module) -> Parameters:
    """Numbers of parameters: all, those of sampling heads, those that train."""
    return Parameters(
        total=sum(p.numel() for p in model.parameters()),
        heads=sum(p.numel() for p in head_parameters(model)),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def gflops(model: nn.Module, image: Tensor) -> float:
    """Of one forward pass on ``image (1, C, H, W)``: two operations for each multiply-add of a product."""
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() / 1e9


Autocast = Callable[[], AbstractContextManager]
"""Entered around every forward pass alone: it keeps the weights that it casts until it is left."""


def inference_step(model: nn.Module, autocast: Autocast = nullcontext) -> Callable[[Tensor], None]:
    """A forward pass on images ``(B, C, H, W)`` in evaluation mode."""
    model.eval()

    @torch.no_grad()
    def step(images: Tensor) -> None:
        with autocast():
            model(images)

    return step


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, autocast: Autocast = nullcontext, parts: int = 1
) -> Callable[[Tensor], None]:
    """A whole training step on images ``(B, C, H, W)``, with `loss_of`, ``parts`` times the same. It trains: measure
    last."""
    model.train()

    def step(images: Tensor) -> None:
        optimizer.zero_grad()
        for _ in range(parts):
            loss_of(model, images, autocast).backward()
        optimizer.step()

    return step


def loss_of(model: nn.Module, images: Tensor, autocast: Autocast = nullcontext) -> Tensor:
    """Of a network that classifies, cross-entropy of class 0; of one that answers with images, their mean square."""
    with autocast():
        output = logits_of(model(images)).float()
    if output.dim() > 2:
        return output.square().mean()
    return F.cross_entropy(output, output.new_zeros(len(images), dtype=torch.int64))


def is_compiled(model: nn.Module) -> bool:
    """Whether calling the model runs what `nn.Module.compile` made of it."""
    return model._compiled_call_impl is not None


def activation_memory_mib(model: nn.Module, images: Tensor, autocast: Autocast = nullcontext) -> float:
    """What one training step on images ``(B, C, H, W)`` keeps for its backward pass, parameters aside: every storage
    once."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(model, images, autocast)
    total = sum(kept.values()) / 2**20
    del loss
    return total


@dataclass(frozen=True)
class Timed:
    """Seconds of every step, and the joules that the GPU took for all of them; None where it cannot say."""

    seconds: list[float]
    joules: float | None


def timed(step: Callable[[Tensor], None], images: Tensor, config: MeasureConfig) -> Timed:
    """Repeat a step on the same images, after some that do not count, as often and as long as ``config`` says."""
    wait = torch.cuda.synchronize if images.is_cuda else (lambda: None)
    for _ in range(config.warmup):
        step(images)
    wait()
    before, times, total = gpu_joules(images.device), [], 0.0
    while len(times) < config.repeats or total < config.seconds:
        start = time.perf_counter()
        step(images)
        wait()
        times.append(time.perf_counter() - start)
        total += times[-1]
    after = gpu_joules(images.device)
    return Timed(times, after - before if before is not None and after is not None else None)


def latency(timed: Timed) -> Latency:
    """Milliseconds of one step: that of one image, usually."""
    cuts = statistics.quantiles(timed.seconds, n=100, method="inclusive")
    return Latency(p50=cuts[49] * 1e3, p90=cuts[89] * 1e3, p99=cuts[98] * 1e3)


def throughput(timed: Timed, batch_size: int, dtype: str, layout: str, compiled: bool) -> Throughput:
    """Images per second of steps of ``batch_size`` images; ``dtype`` is what the model computes in, ``layout`` the
    images' memory format."""
    rates = [batch_size / seconds for seconds in timed.seconds]
    lower, median, upper = statistics.quantiles(rates, n=4, method="inclusive")
    return Throughput(
        median=median,
        lower_quartile=lower,
        upper_quartile=upper,
        repeats=len(rates),
        batch_size=batch_size,
        dtype=dtype,
        layout=layout,
        compiled=compiled,
        threads=torch.get_num_threads(),
        joules_per_image=None if timed.joules is None else timed.joules / (len(rates) * batch_size),
    )


def reset_peak_memory() -> None:
    """Start a new peak, where the system can: later runs of one process must not inherit an earlier run's."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib(device: torch.device) -> float | None:
    """Peak since `reset_peak_memory`: of allocated device memory, else of this process; None where unreadable."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        return None
