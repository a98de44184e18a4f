"""Started by torchrun: score a fixed network on a split whose size no batch divides, and write what was counted."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from metric_zoo.benchmarks.sweep import _release
from metric_zoo.benchmarks.tasks.classification.training import evaluate

SIZE, BATCH = 101, 8


def network_and_data() -> tuple[torch.nn.Module, TensorDataset]:
    generator = torch.Generator().manual_seed(3)
    images, labels = torch.randn(SIZE, 12, generator=generator), torch.randint(0, 7, (SIZE,), generator=generator)
    model = torch.nn.Linear(12, 7)
    with torch.no_grad():
        model.weight.copy_(torch.randn(7, 12, generator=generator))
        model.bias.zero_()
    return model, TensorDataset(images, labels)


def main(out: Path) -> None:
    accelerator = Accelerator(cpu=True)
    model, data = network_and_data()
    model, loader = accelerator.prepare(model, DataLoader(data, BATCH))
    scores = evaluate(accelerator, model, loader, SIZE).scores
    (out / f"{accelerator.process_index}.json").write_text(scores.model_dump_json())
    assert accelerator.num_processes == 2
    del model
    _release(accelerator)
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
