"""Every flavour of convolution converts without a change of function, or is refused with a reason.

The oracle is the original module.
"""

from __future__ import annotations

import pytest
import torch
from timm.layers import (
    CondConv2d,
    Conv2dSame,
    MixedConv2d,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from torch import nn

import metric_zoo as mz
from metric_zoo.nn import SampledConv2d
from tests.kinds import LOSSLESS

X = torch.rand(2, 3, 21, 18)


class Wrapped(nn.Module):
    """A stem, then the convolution under test."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.conv = conv

    def forward(self, x):
        return self.conv(self.stem(x))


def assert_unchanged(new: torch.Tensor, old: torch.Tensor) -> None:
    assert (new - old).abs().max() <= 1e-5 * old.abs().max()


FLAVOURS = {
    "reflect": nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect"),
    "replicate": nn.Conv2d(8, 4, 5, padding=2, padding_mode="replicate"),
    "circular": nn.Conv2d(8, 4, (3, 5), padding=(1, 2), padding_mode="circular"),
    "rectangular": nn.Conv2d(8, 4, (3, 7), padding=(1, 3), stride=(2, 1)),
    "row": nn.Conv2d(8, 4, (1, 5), padding=(0, 2)),
    "even": nn.Conv2d(8, 4, 4, stride=2, padding=1),
    "mixed parity": nn.Conv2d(8, 4, (2, 3), padding=(1, 1)),
    "same": nn.Conv2d(8, 4, 3, padding="same", dilation=2),
    "same, even": nn.Conv2d(8, 4, 4, padding="same"),
    "valid": nn.Conv2d(8, 4, 3, padding="valid"),
    "dilated": nn.Conv2d(8, 4, 3, padding=2, dilation=2, stride=2),
    "grouped": nn.Conv2d(8, 4, 3, groups=4, padding=1),
    "depthwise": nn.Conv2d(8, 8, 7, groups=8, padding=3),
    "depth multiplier": nn.Conv2d(8, 24, 3, groups=8, padding=1),
    "no bias": nn.Conv2d(8, 4, 3, bias=False),
    "Conv2dSame": Conv2dSame(8, 4, 3, stride=2),
    "Conv2dSame, even": Conv2dSame(8, 4, 4, stride=2, dilation=1),
    "StdConv2d": StdConv2d(8, 4, 3, padding=1),
    "StdConv2dSame": StdConv2dSame(8, 4, 3, stride=2, padding="SAME"),
    "ScaledStdConv2d": ScaledStdConv2d(8, 4, 3, padding=1, gamma=1.7),
    "ScaledStdConv2dSame": ScaledStdConv2dSame(8, 4, 3, stride=2, padding="SAME"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("flavour", "kind"),
    [(f, k) for f in FLAVOURS for k in LOSSLESS if (f, k) != ("row", "star")],  # a star needs more directions than two
)
def test_flavours(flavour, kind):
    model = Wrapped(FLAVOURS[flavour]).eval()
    converted = mz.convert(model, kind, where=["conv"], example_input=X)
    assert isinstance(converted.conv, SampledConv2d)
    assert_unchanged(converted(X), model(X))
    converted.train()(X).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in converted.conv.parameters())


def test_mixed_convolutions_convert_each_of_their_parts():
    model = Wrapped(MixedConv2d(8, 12, [3, 5, 7], depthwise=False)).eval()
    converted = mz.convert(model, example_input=X)
    assert [*mz.conversion_report(converted).converted] == ["conv.0", "conv.1", "conv.2"]
    assert_unchanged(converted(X), model(X))


class Beside(nn.Module):
    """The convolution under test, beside one that converts; ``call`` feeds it."""

    def __init__(self, conv: nn.Module, call=lambda conv, x: conv(x)) -> None:
        super().__init__()
        self.stem, self.extra, self.conv = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3), conv
        self.call = call

    def forward(self, x):
        x = self.stem(x)
        return self.extra(x), self.call(self.conv, x)


REFUSED = {
    "Conv1d": (nn.Conv1d(8, 4, 3), lambda conv, x: conv(x.mean(2)), "one-dimensional (Conv1d)"),
    "Conv3d": (nn.Conv3d(8, 4, (1, 3, 3)), lambda conv, x: conv(x.unsqueeze(2)), "three-dimensional (Conv3d)"),
    "ConvTranspose2d": (nn.ConvTranspose2d(8, 4, 3), lambda conv, x: conv(x), "transposed (ConvTranspose2d)"),
    "CondConv2d": (
        CondConv2d(8, 4, 3, num_experts=4),
        lambda conv, x: conv(x, x.new_ones(len(x), 4)),
        "its kernel is mixed anew for every image (CondConv2d)",
    ),
    "quantized": (
        # Its kernels need a processor of their kind, so it is not called.
        torch.ao.nn.quantized.Conv2d(8, 4, 3),
        lambda conv, x: x,
        "quantized (Conv2d): convert the float model, then quantize",
    ),
}


@pytest.mark.parametrize("flavour", REFUSED)
def test_what_cannot_be_converted_says_why(flavour):
    conv, call, reason = REFUSED[flavour]
    model = Beside(conv, call)
    report = mz.conversion_report(mz.convert(model, example_input=X))
    assert [*report.converted] == ["extra"]
    assert report.skipped["conv"] == reason
    with pytest.raises(mz.ConversionError, match="strict: conv cannot be converted"):
        mz.convert(model, strict=True, example_input=X)


def test_a_convolution_called_several_times():
    class Twice(Wrapped):
        def forward(self, x):
            return self.conv(self.conv(self.stem(x)))

    model = Twice(nn.Conv2d(8, 8, 3, padding=1)).eval()
    converted = mz.convert(model, example_input=X)
    assert_unchanged(converted(X), model(X))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    model = Wrapped(nn.Conv2d(8, 8, 3, padding=1)).to(dtype).eval()
    converted = mz.convert(model, example_input=X.to(dtype))
    assert {p.dtype for p in converted.parameters()} == {dtype}
    tolerance = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(converted(X.to(dtype)), model(X.to(dtype)), rtol=tolerance, atol=tolerance)


def test_channels_last_models_stay_channels_last():
    model = Wrapped(nn.Conv2d(8, 16, 3, padding=1)).to(memory_format=torch.channels_last).eval()
    converted = mz.convert(model, example_input=X)
    assert converted.conv.weight.is_contiguous(memory_format=torch.channels_last)
    x = X.to(memory_format=torch.channels_last)
    assert_unchanged(converted(x), model(x))


def test_a_model_that_keeps_tensors_with_a_history():
    model = Wrapped(nn.Conv2d(8, 8, 3))
    model.cache = {"bias": [model.conv.weight * 2]}  # copy.deepcopy refuses this
    converted = mz.convert(model, example_input=X)
    assert torch.equal(converted.cache["bias"][0], model.cache["bias"][0])
    assert converted.cache["bias"][0] is not model.cache["bias"][0]


# --- models that are wrapped ----------------------------------------------------------------------------------------


@pytest.fixture
def process_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def _sharded(model):
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (1,)))


def _fully_sharded(model):
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(model, device_id=torch.device("cpu"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "wrap", [nn.parallel.DistributedDataParallel, _sharded, _fully_sharded], ids=["DDP", "fully_shard", "FSDP"]
)
def test_distributed_wrappers_are_refused(wrap, process_group):
    model = wrap(Wrapped(nn.Conv2d(8, 8, 3)))
    with pytest.raises(mz.ConversionError, match="which would not see the heads: convert the model, then wrap it"):
        mz.convert(model, example_input=X, inplace=True)
    assert not any(isinstance(m, SampledConv2d) for m in model.modules())


OTHERS = {
    "compiled": (lambda: torch.compile(Wrapped(nn.Conv2d(8, 8, 3))), "compiled: convert model._orig_mod"),
    "scripted": (lambda: torch.jit.script(Wrapped(nn.Conv2d(8, 8, 3))), "TorchScript"),
    "lazy": (lambda: Wrapped(nn.LazyConv2d(8, 3)), "conv is lazy"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrapper", OTHERS)
def test_other_wrappers_are_refused(wrapper):
    make, message = OTHERS[wrapper]
    with pytest.raises(mz.ConversionError, match=message):
        mz.convert(make(), example_input=X)


def test_the_inside_of_a_compiled_model_converts():
    compiled = torch.compile(Wrapped(nn.Conv2d(8, 8, 3)), backend="eager")
    assert mz.conversion_report(mz.convert(compiled._orig_mod, example_input=X)).converted


def test_weights_that_are_gone():
    model = Wrapped(nn.Conv2d(8, 8, 3))
    model.conv.to("meta")  # as an offloaded or never loaded layer
    with pytest.raises(mz.ConversionError, match="2 parameters, 'conv.weight' the first, are on the meta device"):
        mz.convert(model, example_input=X, inplace=True)
    assert type(model.conv) is nn.Conv2d


def test_a_model_that_only_runs_without_arithmetic_is_refused_and_left_alone():
    class Broken(Wrapped):
        def forward(self, x):
            x = super().forward(x)
            if not x.is_meta:
                raise RuntimeError("the device is lost")
            return x

    model = Broken(nn.Conv2d(8, 8, 3))
    with pytest.raises(mz.ConversionError, match="does not run on its example input: the device is lost"):
        mz.convert(model, example_input=X, inplace=True)
    assert type(model.conv) is nn.Conv2d
