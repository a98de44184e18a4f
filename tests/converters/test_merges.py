"""Blocks that merge their branches: the oracle is the network before the merge."""

from __future__ import annotations

import copy
import importlib
import pickle
import warnings

import pytest
import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn

import metric_zoo as mz
from metric_zoo.converters.merges import GuardedMerge
from metric_zoo.errors import ConversionError
from metric_zoo.nn import SampledConv2d
from tests.kinds import SAMPLED

X = torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(0))
BLOCKS = {  # module of timm.models, class, arguments
    "byobnet-repvgg": ("byobnet", "RepVggBlock", (8, 8)),
    "byobnet-mobileone": ("byobnet", "MobileOneBlock", (8, 8)),
    "fastvit-mobileone": ("fastvit", "MobileOneBlock", (8, 8, 3)),
    "fastvit-large-kernel": ("fastvit", "ReparamLargeKernelConv", (8, 8, 7, 1, 8, 3)),
    "fastvit-mixer": ("fastvit", "RepMixer", (8,)),
    "fastvit-position": ("fastvit", "RepConditionalPosEnc", (8, 8)),
    "repvit-norm": ("repvit", "ConvNorm", (8, 8, 3, 1, 1)),
    "repvit-depthwise": ("repvit", "RepVggDw", (8, 3)),
    "repvit-legacy": ("repvit", "RepVggDw", (8, 3, True)),
    "repghost": ("repghost", "RepGhostModule", (8, 8)),
    "ghostnetv3": ("ghostnet", "GhostModuleV3", (8, 8)),
    "levit": ("levit", "ConvNorm", (8, 8, 3, 1, 1)),
    "efficientvit": ("efficientvit_msra", "ConvNorm", (8, 8, 3, 1, 1)),
    "tinyvit": ("tiny_vit", "ConvNorm", (8, 8, 3, 1, 1)),
    "shvit": ("shvit", "Conv2dNorm", (8, 8, 3, 1, 1)),
    "iformer": ("iformer", "RepCPE", (8,)),
    "efficientvim": ("efficientvim", "ConvLayer2d", (8, 8, 3, 1, 1)),
    "lcnetv2": ("lcnetv2", "RepDepthwiseSeparable", (8, 8, 1, 5, False, True)),
}


def block_of(name: str) -> nn.Module:
    module, cls, arguments = BLOCKS[name]
    found = getattr(pytest.importorskip(f"timm.models.{module}"), cls, None)
    if found is None:
        pytest.skip(f"this timm has no {cls}")
    return found(*arguments)


def lively(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean, std=0.3), nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 2), nn.init.normal_(norm.bias)
    return model.eval()


def trained(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in mz.nn.head_parameters(model):
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def network(block: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return lively(nn.Sequential(nn.Conv2d(8, 8, 1), block))


def converted(block: nn.Module, kind: str = "deformable") -> nn.Module:
    return mz.convert(network(block), kind, where="all", example_input=X)


def change(model: nn.Module, expected: Tensor) -> float:
    with torch.no_grad():
        return ((model(X) - expected).norm() / expected.norm()).item()


def sampled(model: nn.Module) -> int:
    return sum(isinstance(module, SampledConv2d) for module in model.modules())


@pytest.mark.parametrize("name", BLOCKS)
def test_a_merge_keeps_the_function(name):
    plain = network(block_of(name))
    model = mz.convert(plain, "deformable", where="all", example_input=X)
    with torch.no_grad():
        plain = plain(X)
    assert change(reparameterize_model(model), plain) < 1e-5
    with torch.no_grad():
        expected = trained(model)(X)
    with pytest.raises(ConversionError, match="would drop the trained sampling of"):
        reparameterize_model(model)
    assert change(model, expected) == 0


@pytest.mark.parametrize("kind", [kind for kind in SAMPLED if kind != "deformable"])
def test_no_kind_is_dropped(kind):
    model = trained(converted(block_of("byobnet-repvgg"), kind))
    with pytest.raises(ConversionError, match="would drop the trained sampling of 1 layers, 'conv_kxk.conv' the first"):
        reparameterize_model(model)


def test_a_sparse_layer_is_not_dropped():
    model = network(Fold())
    model = mz.convert(model, "sparse", example_input=X, steps=1, max_error=9, min_speedup=0)
    with pytest.raises(ConversionError, match="would drop"):
        reparameterize_model(model)


class Fold(nn.Module):
    """Of another library: methods that answer with a module, with nothing, with tensors, and one that asks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 9, padding=4, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)

    def fuse(self) -> nn.Module:
        kernel, bias = self.get_equivalent_kernel_bias()
        merged = nn.Conv2d(8, 8, 9, padding=4, groups=8)
        merged.weight.data, merged.bias.data = kernel, bias
        return merged

    def merge_branches(self, check: bool = True) -> None:
        self.conv, self.forward = self.fuse(), lambda x: self.conv(x)

    def get_equivalent_kernel_bias(self) -> tuple[Tensor, Tensor]:
        kernel = self.conv.weight.data.clone()
        kernel[:, 0, 4, 4] += 1
        return kernel, self.conv.bias.data

    def merge(self, x: Tensor) -> Tensor:
        return x


def test_a_block_of_another_library_is_guarded_by_what_its_methods_are_called():
    model = converted(Fold())
    with torch.no_grad():
        plain = model(X)
    fused = copy.deepcopy(model)
    fused[1] = fused[1].fuse()
    assert change(fused, plain) < 1e-5
    trained(model)
    for method in (model[1].fuse, model[1].merge_branches, model[1].get_equivalent_kernel_bias):
        with pytest.raises(ConversionError, match="merge the plain network before you convert it"):
            method()
    assert model[1].merge(X) is X


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "again": lambda model: mz.convert(model, "deformable", where="all", example_input=X),
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_are_guarded_each_for_itself(way):
    model = converted(block_of("byobnet-repvgg"))
    twin = trained(COPIES[way](model))
    with pytest.raises(ConversionError, match="would drop"):
        reparameterize_model(twin, inplace=True)
    assert sampled(reparameterize_model(model)) == 0


def test_a_loaded_model_is_guarded(tmp_path):
    model = trained(converted(block_of("byobnet-repvgg")))
    with warnings.catch_warnings(action="ignore"):
        mz.save(model, tmp_path)
        loaded = mz.load(tmp_path, model=network(block_of("byobnet-repvgg")))
    with pytest.raises(ConversionError, match="would drop"):
        reparameterize_model(loaded)


def test_a_reverted_model_is_free():
    plain = mz.revert(converted(block_of("byobnet-repvgg")))
    assert not any(isinstance(v, GuardedMerge) for m in plain.modules() for v in vars(m).values())


def test_what_failed_to_convert_is_free():
    net = network(Fold())
    net.register_forward_hook(lambda module, inputs, output: output * sampled(module))
    with pytest.raises(ConversionError):
        mz.convert(net, "deformable", where="all", example_input=X, inplace=True)
    assert not any(isinstance(v, GuardedMerge) for m in net.modules() for v in vars(m).values())


def test_the_report_counts_what_is_there():
    model = converted(block_of("byobnet-repvgg"))
    names = list(mz.conversion_report(model).converted)
    merged = reparameterize_model(model)
    report = mz.conversion_report(merged)
    assert (list(report.converted), list(report.gone)) == ([], names)
    assert "0 of" in str(report) and f"no longer in the model: {names[0]!r}" in str(report)
    assert list(mz.conversion_report(model).converted) == names


def test_the_report_knows_a_layer_in_a_wrapper():
    model = converted(Fold())
    model[1].conv = nn.Sequential(model[1].conv)
    assert list(mz.conversion_report(model).converted) == ["1.conv"] and not mz.conversion_report(model).gone


def test_a_norm_folds_into_a_trained_layer():
    model = trained(converted(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))))
    with torch.no_grad():
        expected = model(X)
    model[1] = torch.nn.utils.fuse_conv_bn_eval(*model[1])
    assert isinstance(model[1], mz.nn.DeformConv2d) and change(model, expected) < 1e-6


def test_every_merging_method_of_timm_is_found():
    """What timm itself looks for, in every module that has it."""
    from metric_zoo.converters.merges import _merging_methods

    for module, cls, _ in BLOCKS.values():
        block = getattr(importlib.import_module(f"timm.models.{module}"), cls, None)
        names = [name for name in ("fuse", "reparameterize", "switch_to_deploy") if hasattr(block, name)]
        assert block is None or (names and set(names) <= set(_merging_methods(block)))


class Fusing(nn.Module):
    """Its forward pass has a step of a merge's name."""

    def __init__(self):
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

    def fuse(self, first=None, second=None):
        return first + second

    def merge(self):
        self.a = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.stem(x)
        return self.fuse(x, self.a(x))


def test_a_step_of_the_forward_pass_is_no_merge():
    x = torch.randn(1, 3, 8, 8)
    model = trained(mz.convert(Fusing(), "deformable", where="all", example_input=x))
    assert model(x).isfinite().all()
    with pytest.raises(mz.ConversionError, match="Fusing.merge would drop the trained sampling"):
        model.merge()


def test_a_kernel_within_what_takes_the_place_is_met():
    x = torch.randn(1, 3, 8, 8)
    model = trained(mz.convert(Fusing(), "deformable", where="all", example_input=x))
    inner = nn.Conv2d(4, 4, 3, padding=1)
    inner.weight.data.copy_(model.a.weight)
    with pytest.raises(mz.ConversionError, match="drops its trained sampling"):
        model.a = nn.Sequential(inner, nn.ReLU())
    nn.init.zeros_(inner.weight)
    model.a = inner  # a convolution of zeros is nobody's
