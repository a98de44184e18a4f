"""One step of a training, on a process's micro-batches."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from metric_zoo.benchmarks.optimization import build_optimizer, moving_average, rate, set_rate
from metric_zoo.benchmarks.recipe_sections import TrainConfig
from metric_zoo.benchmarks.tasks.training import TaskTraining
from metric_zoo.nn import head_regularization


class Stepper:
    """A network with its optimiser and, where the recipe asks for one, the moving average of its weights.

    Args:
        model: on the CPU; it is prepared here.
        config: how to train.
        task: whose loss is minimised.
        accelerator: fresh for this run.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, task: TaskTraining, accelerator: Accelerator) -> None:
        self._config, self._task, self._accelerator = config, task, accelerator
        self.model, self._optimizer = accelerator.prepare(model, build_optimizer(model, config))
        self.average = None
        if config.ema is not None:
            self.average = moving_average(self.plain, config.ema)
            accelerator.register_for_checkpointing(self.average)

    @property
    def plain(self) -> nn.Module:
        """The network without wrappers."""
        return self._accelerator.unwrap_model(self.model)

    @property
    def scored(self) -> nn.Module:
        """The network to evaluate: the moving average, where there is one."""
        return self.average.module if self.average is not None else self.model

    def step(self, parts: list[tuple[Tensor, Tensor]], number: int, of_an_epoch: int) -> Tensor:
        """Step ``number`` of the training; loss sum, right answers, images of this process's micro-batches."""
        config, sums = self._config, torch.zeros(3, dtype=torch.float64, device=self._accelerator.device)
        set_rate(self._optimizer, rate(config, number, of_an_epoch))
        self._optimizer.zero_grad()
        for part, (images, targets) in enumerate(parts, 1):
            with self._accelerator.no_sync(self.model) if part < len(parts) else nullcontext():
                sums += self._backward(images, targets, len(parts))
        if config.clip_norm is not None:
            self._accelerator.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self._optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.plain)
        return sums

    def _backward(self, images: Tensor, targets: Tensor, parts: int) -> Tensor:
        device, config = self._accelerator.device, self._config
        layout = torch.channels_last if config.layout == "channels_last" else torch.contiguous_format
        images = images.to(device, non_blocking=True).contiguous(memory_format=layout)
        targets = targets.to(device, non_blocking=True)
        output = self.model(images)
        loss = self._task.loss(output, targets)
        whole = (
            loss + config.head_regularization * head_regularization(self.model) if config.head_regularization else loss
        )
        self._accelerator.backward(whole / parts)
        right = torch.zeros_like(loss) + self._task.right(output, targets)
        images_seen = torch.full_like(loss, len(targets))
        return torch.stack((loss.detach() * len(targets), right.detach(), images_seen)).double()

    def synchronize_buffers(self) -> None:
        """Give every process the main one's running statistics, or they would score different networks."""
        for model in (self.model, *([self.average.module] if self.average is not None else [])):
            if self._accelerator.num_processes > 1:
                for buffer in model.buffers():
                    torch.distributed.broadcast(buffer, src=0)
