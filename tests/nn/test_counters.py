"""Other libraries' FLOP counters: the oracle is the same counter on ordinary convolutions of the same sizes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import metric_zoo as mz
from metric_zoo.nn import counters

X = torch.randn(1, 8, 16, 16)
PLAIN = 16 * 16 * (8 * 8 + 16 * 8 * 9)  # multiply-adds
HEADS = {  # of the 3x3 layer, by kind and form
    ("deformable", "full"): 18 * 8 * 9,
    ("deformable", "separable"): 8 * 9 + 18 * 8,
    ("shifted", "bottleneck"): 2 * 8 + 2 * 2,
    ("metric", "pointwise"): 7 * 8,
    ("active", None): 0,
    ("dilated", None): 0,
}


def network(kind: str, head: str | None) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 16, 3, padding=1, bias=False))
    return mz.convert(net, kind, where="all", example_input=X, **({"head": head} if head else {})).eval()


def fvcore(model: nn.Module) -> int:
    analysis = pytest.importorskip("fvcore.nn").FlopCountAnalysis(model, X)
    analysis = analysis.unsupported_ops_warnings(False).tracer_warnings("none")
    return analysis.set_op_handle(**counters.fvcore_handles()).total()


def thop(model: nn.Module) -> int:
    profile = pytest.importorskip("thop").profile
    operations, parameters = profile(model, (X,), custom_ops=counters.thop_ops(), verbose=False)
    assert parameters == sum(p.numel() for p in model.parameters())
    return operations


def ptflops(model: nn.Module) -> int:
    count = pytest.importorskip("ptflops").get_model_complexity_info
    options = {"as_strings": False, "print_per_layer_stat": False, "verbose": False, "backend": "pytorch"}
    return count(model, tuple(X.shape[1:]), custom_modules_hooks=counters.ptflops_hooks(), **options)[0]


def torchinfo(model: nn.Module) -> int:
    summary = pytest.importorskip("torchinfo").summary
    return counters.complete_torchinfo(summary(model, input_data=X, verbose=0)).total_mult_adds


COUNTERS = {"fvcore": fvcore, "thop": thop, "ptflops": ptflops, "torchinfo": torchinfo}


@pytest.mark.parametrize("counter", COUNTERS)
@pytest.mark.parametrize(("kind", "head"), HEADS)
def test_kernels_and_heads_are_counted(counter, kind, head):
    model = network(kind, head)
    biases = 16 * 16 * sum(m.bias.numel() for m in model.modules() if isinstance(m, nn.Conv2d) and m.bias is not None)
    counted = COUNTERS[counter](copy.deepcopy(model))
    assert counted == PLAIN + 16 * 16 * HEADS[kind, head] + biases * (counter == "torchinfo")


@pytest.mark.parametrize("counter", COUNTERS)
def test_a_sparse_layer_counts_as_torch_counts_it(counter):
    model = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), mz.nn.SparseKernelComplex2d(8, 15, padding=7, bias=False))
    with FlopCounterMode(display=False) as mode, torch.no_grad():
        model(X)
    assert COUNTERS[counter](model) == mode.get_total_flops() // 2 > 16 * 16 * 8 * 8
