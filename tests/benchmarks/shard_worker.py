"""Started by torchrun: train a converted network whose parameters are shared out (FSDP), and write its losses and how
far its samples have moved."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from metric_zoo import convert, parameter_groups
from metric_zoo import nn as zoo

STEPS, BATCH = 3, 8


def losses(
    kind: str, prepare: Callable[[nn.Module], nn.Module], part: slice
) -> tuple[list[float], list[tuple[float, float]]]:
    """Of so many steps on one part of the same batch; the network does not look at its batch. Then mean and maximum of
    each layer's displacements."""
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", channels=[8, 8, 16, 16], norm_layer="groupnorm1", num_classes=4)
    images, labels = torch.randn(BATCH, 3, 64, 64), torch.randint(0, 4, (BATCH,))
    model = prepare(convert(model, kind, example_input=images[:1]))
    optimizer = torch.optim.AdamW(parameter_groups(model, lr=0.01))
    found = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[part]), labels[part])
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    layers = zoo.sampling_health(model, images[part]).layers.values()
    return found, [(layer.mean, layer.maximum) for layer in layers if not layer.never_moved]


def shard(model: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for name in ("layer1", "layer2", "layer3", "layer4"):
        fully_shard(getattr(model, name), mesh=mesh)
    return fully_shard(model, mesh=mesh)


def main(kind: str, out: Path) -> None:
    dist.init_process_group("gloo")
    size = BATCH // dist.get_world_size()
    part = slice(dist.get_rank() * size, (dist.get_rank() + 1) * size)
    (out / f"{dist.get_rank()}.json").write_text(json.dumps(losses(kind, shard, part)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
