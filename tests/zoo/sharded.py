"""Run by several processes: save a model that `fully_shard` has spread over them, and compare what is read back."""

from __future__ import annotations

import sys
import warnings

import timm
import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard

import metric_zoo as mz


def main(folder: str, blocked: str) -> None:
    distributed.init_process_group("gloo")
    torch.manual_seed(0)
    model = mz.convert(timm.create_model("test_resnet", num_classes=5, drop_rate=0.25), "metric").eval()
    image = torch.rand(1, 3, 64, 64)
    expected = model(image)
    fully_shard(model.layer1)
    fully_shard(model)
    warnings.simplefilter("error", UserWarning)
    mz.save(model, folder)
    loaded = mz.load(folder)
    assert torch.equal(loaded(image), expected) and type(loaded) is timm.models.ResNet and loaded.drop_rate == 0.25
    try:
        mz.save(model, blocked)
    except mz.ConversionError as error:
        print("refused:", "cannot be written" in str(error))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
