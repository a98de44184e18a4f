"""What learns slowly: names that the published programs give to what predicts offsets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import metric_zoo as mz
from tests.converters import deformable

SLOW = {  # a model, and the parameters that decide where it samples
    "DCNv3": (lambda: nn.Sequential(mz.nn.DCNv3(8)), {"0.offset.weight", "0.offset.bias"}),
    "DCNv4": (lambda: nn.Sequential(mz.nn.DCNv4(8)), {"0.offset_mask.weight", "0.offset_mask.bias"}),
    "mmcv packs": (
        lambda: mz.adopt(deformable.packs()),
        {f"{layer}.conv_offset.{name}" for layer in (0, 2) for name in ("weight", "bias")},
    ),
    "a converted layer beside one": (
        lambda: nn.ModuleList([mz.nn.ShiftedConv2d(4, 4, 3, head="pointwise"), mz.nn.DCNv3(8)]),
        {"0.sampler.weight", "0.sampler.bias", "1.offset.weight", "1.offset.bias"},
    ),
    "torchvision's layer": (lambda: mz.adopt(deformable.Beside(4, 8)), set()),
    "calls": (lambda: mz.adopt(deformable.Aspp()), set()),
    "packs that are not adopted": (deformable.packs, set()),
}


@pytest.mark.parametrize(("build", "slow"), SLOW.values(), ids=SLOW)
def test_what_predicts_offsets_learns_slowly(build, slow):
    model = build()
    backbone, *heads = mz.parameter_groups(model, lr=1.0, head_lr_scale=0.01)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for group in heads for p in group["params"]} == slow
    assert {names[id(p)] for p in backbone["params"]} == set(names.values()) - slow
    assert [group["lr"] for group in heads] == [0.01] * bool(slow)


def test_heads_are_those_of_converted_layers():
    """What a conversion has added: a checkpoint of InternImage holds its offsets, and must not do without them."""
    assert not mz.nn.head_parameters(nn.Sequential(mz.nn.DCNv3(8)))


def test_a_slow_head_stays_where_it_is():
    """At a rate of 0, as the smallest there is, offsets do not move, and all else does."""
    model = nn.Sequential(mz.nn.DCNv3(8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(mz.parameter_groups(model, lr=1.0, head_lr_scale=0), lr=1.0)
    model(torch.randn(1, 5, 5, 8)).square().sum().backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not moved & {"0.offset.weight", "0.offset.bias"} and "0.output_proj.weight" in moved
