"""Networks with deformable layers of other libraries, put in by hand as their users do."""

from __future__ import annotations

import functools

import torch
import torchvision
import torchvision.ops as tv
from torch import Tensor, nn
from torchvision.ops import DeformConv2d as TorchvisionConv
from torchvision.ops import deform_conv2d as operator


def enliven(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights at which offsets are no whole numbers, and statistics that a forward pass can be compared with."""
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        fan = max(parameter[0].numel(), 1) if parameter.dim() > 1 else 4
        parameter.data = torch.randn(parameter.shape, generator=random) / fan**0.5
    return model.eval()


class Beside(nn.Module):
    """torchvision's layer, with the convolutions that predict its arguments beside it."""

    def __init__(
        self, channels: int, out: int, stride: int = 1, groups: int = 1, fields: int = 1, masked: bool = False
    ):
        super().__init__()
        grid = {"kernel_size": 3, "stride": stride, "padding": 2, "dilation": 2}
        self.offset = nn.Conv2d(channels, 18 * fields, **grid)
        self.mask = nn.Conv2d(channels, 9 * fields, **grid) if masked else None
        self.deform = TorchvisionConv(channels, out, **grid, groups=groups, bias=masked)

    def forward(self, x: Tensor) -> Tensor:
        mask = None if self.mask is None else self.mask(x).sigmoid()
        return self.deform(x, self.offset(x), mask=mask)


def resnet() -> nn.Module:
    """torchvision's, whose two blocks of a late stage are deformable."""
    model = torchvision.models.resnet18(num_classes=5)
    model.layer2 = model.layer3 = nn.Identity()
    model.layer4 = nn.Sequential(Beside(64, 24, stride=2, groups=2, fields=2), nn.ReLU(), Beside(24, 512, masked=True))
    return model


class Sampled(nn.Module):
    """A call of the function, on the kernel of a convolution that never runs."""

    def __init__(self, channels: int, out: int, side: int) -> None:
        super().__init__()
        self.padding = side // 2
        self.offset_conv = nn.Conv2d(channels, 2 * side * side, side, padding=self.padding)
        self.modulator_conv = nn.Conv2d(channels, side * side, side, padding=self.padding)
        self.regular_conv = nn.Conv2d(channels, out, side, padding=self.padding, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        modulator = 2.0 * torch.sigmoid(self.modulator_conv(image))
        kernel = self.regular_conv
        arguments = {"offset": self.offset_conv(image), "weight": kernel.weight, "bias": kernel.bias}
        return operator(input=image, **arguments, padding=self.padding, mask=modulator, stride=1)


class Aspp(nn.Module):
    """Branches of several windows, joined with the image's mean, as in BiRefNet."""

    def __init__(self, channels: int = 6, width: int = 4) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(Sampled(channels, width, side), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            for side in (1, 3, 7)
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, width, 1))
        self.join = nn.Sequential(nn.Conv2d(4 * width, channels, 1), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        mean = nn.functional.interpolate(self.pooled(x), size=x.shape[2:])
        return self.join(torch.cat([*(branch(x) for branch in self.branches), mean], dim=1))


class CompiledFunction(torch.autograd.Function):
    """Stands for a function of mmcv's compiled part, which nothing sees into: torchvision's operator."""

    @staticmethod
    def forward(ctx, kernel, *tensors):
        ctx.kernel = kernel
        ctx.save_for_backward(*tensors)
        return kernel(*tensors)

    @staticmethod
    def backward(ctx, grad):
        tensors = [None if t is None else t.detach().requires_grad_() for t in ctx.saved_tensors]
        with torch.enable_grad():
            given = [t for t in tensors if t is not None]
            found = iter(torch.autograd.grad(ctx.kernel(*tensors), given, grad))
        return None, *(None if t is None else next(found) for t in tensors)


def _kernel(x, offset, mask, weight, bias, *grid):
    return torch.ops.torchvision.deform_conv2d(
        *(x, weight, offset, x.new_zeros(len(x), 1) if mask is None else mask),
        *(weight.new_zeros(len(weight)) if bias is None else bias, *grid, mask is not None),
    )


def _run(x, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups):
    pairs = [side for pair in (stride, padding, dilation) for side in nn.modules.utils._pair(pair)]
    call = functools.partial(_with_grid, (*pairs, groups, deform_groups))
    return CompiledFunction.apply(call, x, offset, mask, weight, bias)


def _with_grid(grid, *tensors):
    return _kernel(*tensors, *grid)


class Extension:
    """mmcv's functions: callables of its compiled part."""

    def __init__(self, masked: bool) -> None:
        self.masked = masked

    def __call__(self, x, offset, *others):
        if self.masked:
            mask, weight, bias, *grid = others
            return _run(x, offset, mask, weight, bias, *grid)
        weight, *grid = others[:6]
        return _run(x, offset, None, weight, None, *grid)


deform_conv2d, modulated_deform_conv2d = Extension(False), Extension(True)


class _Layer(nn.Module):
    def __init__(self, channels, out, side, stride=1, padding=0, dilation=1, groups=1, deform_groups=1, bias=True):
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = channels, out, (side, side)
        self.stride, self.padding, self.dilation = (stride, stride), (padding, padding), (dilation, dilation)
        self.groups, self.deform_groups, self.im2col_step = groups, deform_groups, 32
        self.weight = nn.Parameter(torch.zeros(out, channels // groups, side, side))
        if bias:
            self.bias = nn.Parameter(torch.zeros(out))

    def predict(self, numbers):
        channels = numbers * self.deform_groups * self.weight[0, 0].numel()
        grid = (self.kernel_size, self.stride, self.padding, self.dilation)
        self.conv_offset = nn.Conv2d(self.in_channels, channels, *grid)


class DeformConv2d(_Layer):
    """By the names of mmcv's."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options, bias=False)

    def forward(self, x, offset):
        weight, grid = self.weight, (self.stride, self.padding, self.dilation)
        return deform_conv2d(x, offset, weight, *grid, self.groups, self.deform_groups, False, self.im2col_step)


class DeformConv2dPack(DeformConv2d):
    """By the names of mmcv's."""

    _version = 2

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.predict(2)

    def forward(self, x):
        weight, grid = self.weight, (self.stride, self.padding, self.dilation)
        offset = self.conv_offset(x)
        return deform_conv2d(x, offset, weight, *grid, self.groups, self.deform_groups, False, self.im2col_step)


class ModulatedDeformConv2d(_Layer):
    """By the names of mmcv's."""

    def forward(self, x, offset, mask):
        grid = (self.stride, self.padding, self.dilation, self.groups, self.deform_groups)
        return modulated_deform_conv2d(x, offset, mask, self.weight, self.bias, *grid)


class ModulatedDeformConv2dPack(ModulatedDeformConv2d):
    """By the names of mmcv's."""

    _version = 2

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.predict(3)

    def forward(self, x):
        first, second, mask = torch.chunk(self.conv_offset(x), 3, dim=1)
        grid = (self.stride, self.padding, self.dilation, self.groups, self.deform_groups)
        offset, mask = torch.cat((first, second), dim=1), torch.sigmoid(mask)
        return modulated_deform_conv2d(x, offset, mask, self.weight, self.bias, *grid)


class Given(nn.Module):
    """mmcv's layers without a prediction of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.offset, self.mask = nn.Conv2d(6, 36, 3, padding=1), nn.Conv2d(6, 18, 3, padding=1)
        self.first = DeformConv2d(6, 6, 3, padding=1, deform_groups=2)
        self.second = ModulatedDeformConv2d(6, 6, 3, padding=1, groups=3, deform_groups=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x, self.offset(x))
        return self.second(x, offset=self.offset(x), mask=self.mask(x))


def packs() -> nn.Module:
    """mmcv's, strided, dilated and grouped."""
    first = DeformConv2dPack(6, 8, 3, stride=2, padding=1, deform_groups=2)
    second = ModulatedDeformConv2dPack(8, 6, 3, padding=2, dilation=2, groups=2, deform_groups=4)
    return nn.Sequential(first, nn.ReLU(), second)


def helper(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    return tv.deform_conv2d(x, offset, weight, padding=1)


class Own(TorchvisionConv):
    """A subclass that predicts its offsets, and calls what it inherits."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__(channels, channels, 3, padding=1)
        self.offset = nn.Conv2d(channels, 18, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, self.offset(x))


class Named(Own):
    """With methods and attributes under names that adoption might want for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.published, self.adoption = 1.0, None

    def compute(self, x: Tensor) -> Tensor:
        return operator(x, self.offset(x), self.weight, self.bias, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.published * self.compute(x)


class Hidden(nn.Module):
    """The function, reached in ways that a tracer does not follow."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.offset, self.kernel = nn.Conv2d(6, 18, 3, padding=1), nn.Conv2d(6, 6, 3, bias=False)
        self.function = functools.partial(operator, padding=(1, 1)) if way == "attribute" else None
        self.anywhere = [operator] if way == "container" else []

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, f"by_{self.way}")(x, self.offset(x), self.kernel.weight)

    def by_attribute(self, x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        return self.function(x, offset, weight)

    def by_container(self, x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        return self.anywhere[0](x, offset, weight, padding=(1, 1))


class ByHelper(Hidden):
    def __init__(self) -> None:
        super().__init__("helper")

    def forward(self, x: Tensor) -> Tensor:
        return helper(x, self.offset(x), self.kernel.weight)


class ByBranch(Hidden):
    def __init__(self) -> None:
        super().__init__("branch")

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 100:  # of values
            return x
        return self.deformed(x)

    def deformed(self, x: Tensor) -> Tensor:
        return torchvision.ops.deform_conv2d(x, self.offset(x), self.kernel.weight, padding=1)


class ByImport(Hidden):
    def __init__(self) -> None:
        super().__init__("import")

    def forward(self, x: Tensor) -> Tensor:
        from torchvision.ops import deform_conv2d as found

        return found(x, self.offset(x), self.kernel.weight, padding=1)


class ByOperator(Hidden):
    def __init__(self) -> None:
        super().__init__("operator")

    def forward(self, x: Tensor) -> Tensor:
        weight, none = self.kernel.weight, x.new_zeros(2, 1)
        grid = (1, 1, 1, 1, 1, 1, 1, 1)
        return torch.ops.torchvision.deform_conv2d(x, weight, self.offset(x), none, x.new_zeros(6), *grid, False)
