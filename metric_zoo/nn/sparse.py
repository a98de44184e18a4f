"""Depthwise convolution layer whose kernels are sparse kernel complexes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.utils.parametrize import is_parametrized

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.nn.config import KindOptions, check_count, is_number
from metric_zoo.nn.kind import Promise, kind
from metric_zoo.nn.leaf import Leaf
from metric_zoo.nn.script import refuse_script
from metric_zoo.ops.padding import NO_PADS, Padding, is_open, pair, resolve_padding, sizes_of
from metric_zoo.sparse.complex import SparseKernelComplex, reach_of, read_layers
from metric_zoo.sparse.fit import STEPS
from metric_zoo.sparse.initialize import radial
from metric_zoo.sparse.render import resize

MIN_KERNEL = 7
"""Pixels a side. Of a smaller kernel a complex reads as much as is there."""


@dataclass(frozen=True)
class SparseConfig(KindOptions):
    """Sizes of `SparseKernelComplex2d`.

    Attributes:
        samples: reads of each layer.
        layers: that are applied one after the other.
    """

    samples: int = 24
    layers: int = 4

    def __post_init__(self) -> None:
        check_count("samples", self.samples)
        check_count("layers", self.layers)


@dataclass(frozen=True)
class SparseOptions(SparseConfig):
    """What ``convert(to="sparse")`` takes.

    Attributes:
        steps: of the fit.
        seed: of its start.
        max_error: a layer with a kernel that is further off, relative to its norm, is left as it is.
        min_speedup: so is one that is not this many times as fast as the convolution, at the declared size. A clock
            decides: where several processes must agree, convert in one and `save`, or give 0.
    """

    steps: int = STEPS
    seed: int = 0
    max_error: float = 0.25
    min_speedup: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("steps", self.steps)
        if self.samples < 3:
            raise MetricZooError(f"samples={self.samples}: expected 3 or more")
        if not isinstance(self.seed, int):
            raise MetricZooError(f"seed={self.seed!r}: expected a whole number")
        for name, least in (("max_error", math.ulp(0)), ("min_speedup", 0)):
            value = getattr(self, name)
            if not is_number(value) or not value >= least:
                raise MetricZooError(f"{name}={value!r}: expected a number {'>= 0' if least == 0 else '> 0'}")


@kind(
    "sparse",
    options=SparseConfig,
    conversion=SparseOptions,
    promise=Promise.APPROXIMATION,
    colour="#4d7c0f",
    marker="p",
)
class SparseKernelComplex2d(Leaf):
    """Stands in for a depthwise convolution with large, fixed kernels: every channel has a complex of its own.

    Source: DISK, ICLR 2026, https://arxiv.org/abs/2512.04556. The kernels have to be known: `from_conv` fits them. It
    pays where they are large: of 7 x 7 samples a dense convolution reads hardly more than a complex.

    Args:
        channels: of input and output.
        kernel_size: odd; of the dense kernels that this stands in for, which decides the output's size.
        samples, layers: reads of each layer, and layers.
        stride, padding: as in `torch.nn.Conv2d`; outside the image are zeros.
        bias: as in `torch.nn.Conv2d`.

    Attributes:
        config: its `SparseConfig`.
        offsets: parameter ``(channels, layers, samples, 2)``, (x, y) in pixels.
        weights: parameter ``(channels, layers, samples)``.

    Shape:
        ``(B, channels, H, W) -> (B, channels, Ho, Wo)``, that of the convolution it stands in for.

    Compiled or exported it keeps the extent that its kernels had when it last ran, or was loaded, as it is.

    Raises:
        MetricZooError: for an even kernel, or a number that is no whole number above 0.
    """

    config: SparseConfig

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        samples: int = SparseConfig.samples,
        layers: int = SparseConfig.layers,
        stride: int | tuple[int, int] = 1,
        padding: Padding = 0,
        bias: bool = True,
        *,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        self.kernel_size = pair(kernel_size, "kernel_size", 1)
        if self.kernel_size[0] % 2 == 0 or self.kernel_size[1] % 2 == 0:
            raise MetricZooError(f"kernel_size={kernel_size}: an even kernel has no pixel in its middle")
        if not isinstance(channels, int) or channels < 1:
            raise MetricZooError(f"channels={channels!r}: expected a whole number >= 1")
        self.config = SparseConfig(samples, layers)
        self.channels, self.padding, self.stride = channels, padding, pair(stride, "stride", 1)
        resolve_padding(padding, (1, 1), self.kernel_size, self.stride, (1, 1))
        like = {"device": device, "dtype": dtype}
        self.offsets = nn.Parameter(torch.empty(channels, layers, samples, 2, **like))
        self.weights = nn.Parameter(torch.empty(channels, layers, samples, **like))
        self.bias = nn.Parameter(torch.zeros(channels, **like)) if bias else None
        self._reach = max(self.kernel_size) // 2 + layers
        self._fitted: tuple[Tensor | None, Tensor | None] = (None, None)
        self.reset_parameters()

    @classmethod
    def from_conv(
        cls,
        conv: nn.Conv2d,
        samples: int = SparseConfig.samples,
        layers: int = SparseConfig.layers,
        steps: int = STEPS,
        *,
        seed: int = 0,
    ) -> SparseKernelComplex2d:
        """Fit every kernel of a depthwise convolution; the bias is copied.

        Args:
            conv: a plain `torch.nn.Conv2d`, depthwise, of odd square kernels, without dilation, padded with zeros.
            samples, layers, steps, seed: as in `SparseKernelComplex.fit`.

        Raises:
            MetricZooError: for another convolution, saying what is in the way.
        """
        cls_of_conv = type(conv).__mro__[1] if is_parametrized(conv) else type(conv)
        unknown = "" if cls_of_conv is nn.Conv2d else f"a {cls_of_conv.__name__}, which may compute something else"
        why = cls.why_not(conv) or unknown or ("its weight has no values" if conv.weight.is_meta else "")
        if why:
            raise MetricZooError(f"a sparse kernel complex cannot take its place: {why}")
        (kernel_size, stride, _), padding = sizes_of(conv), cast("Padding", conv.padding)
        layer = cls(conv.in_channels, kernel_size, samples, layers, stride, padding,
                    conv.bias is not None, device=conv.weight.device, dtype=conv.weight.dtype)  # fmt: skip
        layer.fit(conv.weight, steps, seed=seed)
        if conv.bias is not None and layer.bias is not None:  # both, or none
            with torch.no_grad():
                layer.bias.copy_(conv.bias)
        return layer.train(conv.training)

    @staticmethod
    def why_not(conv: nn.Module) -> str:
        """As of `metric_zoo.nn.kind.Kind.why_not`."""
        if not isinstance(conv, nn.Conv2d):
            return f"a {type(conv).__name__}, not a convolution"
        if not conv.groups == conv.in_channels == conv.out_channels:
            return "not depthwise"
        height, width = conv.kernel_size
        if height != width or height % 2 == 0:
            return f"a kernel of {height} x {width}, not odd and square"
        if conv.dilation != (1, 1):
            return f"dilation {conv.dilation}"
        if conv.padding_mode != "zeros":
            return f"padding_mode={conv.padding_mode!r}"
        return ""

    @staticmethod
    def unwanted(node: Any, explicit: bool) -> str:
        """As of `metric_zoo.nn.kind.Kind.unwanted`: it pays for large kernels."""
        small = min(node.kernel) < MIN_KERNEL and not explicit
        return f"kernel of {node.kernel[0]} x {node.kernel[1]}, below {MIN_KERNEL}" if small else ""

    @classmethod
    def replacing(cls, conv: nn.Conv2d, padding: Padding, options: Mapping[str, Any]) -> SparseKernelComplex2d:
        """As of `metric_zoo.nn.kind.Kind.build`; its kernels are not fitted."""
        why = cls.why_not(conv)
        if why:
            raise MetricZooError(f"a sparse kernel complex cannot take its place: {why}")
        like = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        kernel_size, stride, _ = sizes_of(conv)
        layer = cls(conv.in_channels, kernel_size, stride=stride, padding=padding, bias=False, **options, **like)
        layer.requires_grad_(conv.weight.requires_grad)
        layer.bias = conv.bias
        return layer

    def rule_parameters(self) -> list[nn.Parameter]:
        """The offsets."""
        return [self.offsets]

    @torch.no_grad()
    def fit(self, kernels: Tensor, steps: int = STEPS, *, seed: int = 0, progress: bool = False) -> None:
        """Fit every channel's complex to its kernel; those without negative values keep their sum and centroid.

        Args:
            kernels: ``(channels, 1, M, M)``, a depthwise convolution's weight.
            steps, seed, progress: as in `SparseKernelComplex.fit`.

        Raises:
            MetricZooError: as `SparseKernelComplex.fit`; for kernels of another shape.
        """
        samples, layers = self.config.samples, self.config.layers
        how = {"steps": steps, "seed": seed, "progress": progress}
        if tuple(kernels.shape) != (self.channels, 1, *self.kernel_size):
            raise MetricZooError(
                f"kernels have shape {tuple(kernels.shape)}: expected {(self.channels, 1, *self.kernel_size)}"
            )
        target = kernels.detach()[:, 0]
        # A kernel that prune or training has emptied is one of weights 0, and nothing to fit.
        full = (target != 0).flatten(1).any(1)
        self.weights.zero_()
        negative = (target < 0).flatten(1).any(1)
        for signed in (False, True):
            own = full & (negative == signed)
            if own.any():
                fits = SparseKernelComplex.fit(target[own], samples, layers, signed=signed, **how)
                self.offsets[own], self.weights[own] = fits.offsets.to(self.offsets), fits.weights.to(self.weights)
        self._extent()

    @torch.no_grad()
    def kernel_error(self, kernels: Tensor) -> float:
        """The largest ``|K - kernel| / |kernel|`` of all channels, K being the kernel that this layer applies.

        For white noise it is the relative error of the output; photographs are smoother, and lose less. The worst
        channel counts, since what follows a depthwise convolution may scale every channel alike (a normalisation).

        Args:
            kernels: ``(channels, 1, M, M)``, as for `fit`; an empty one has no error while it is met exactly.
        """
        complexes = self.complex()
        size = max(2 * complexes.reach + 1, kernels.shape[-1])
        wanted = resize(kernels.detach()[:, 0].to(complexes.weights), size)
        missed, norm = (t.flatten(1).norm(dim=1) for t in (complexes.kernel(size) - wanted, wanted))
        return torch.where(missed == 0, missed, missed / norm).amax().item()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Increasing circles as wide as the kernel, of equal weights; a bias of 0."""
        channels, layers, samples = self.weights.shape
        if self.weights.is_meta:
            return
        self.offsets.copy_(radial(samples, layers, max(self.kernel_size) // 2).expand(channels, -1, -1, -1))
        self.weights.fill_(1 / samples)
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, input: Tensor) -> Tensor:
        """``(B, channels, H, W)`` or ``(channels, H, W)`` -> the same with the convolution's output size."""
        if isinstance(input, Proxy):
            return self.recorded(input, input)
        if input.dim() == 3:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        if input.dim() != 4 or input.shape[1] != self.channels:
            raise MetricZooError(f"input {tuple(input.shape)}: expected {self.channels} channels of (H, W), or a batch")
        size = (input.shape[-2], input.shape[-1])
        pads = resolve_padding(self.padding, size, self.kernel_size, self.stride, (1, 1))
        if is_open(self.padding, self.stride, size[0]):
            (top, bottom), (left, right) = pads
            input, pads = F.pad(input, (left, right, top, bottom)), NO_PADS
        # A kernel's middle lies half of its size within; what the padding has more or less of is added or cut off.
        elif any(n + sum(pad) < k for n, pad, k in zip(size, pads, self.kernel_size, strict=True)):
            raise MetricZooError(f"a kernel of {self.kernel_size} is larger than the padded input: {size}, {pads}")
        (top, bottom), (left, right) = (
            (before - k // 2, after - k // 2) for (before, after), k in zip(pads, self.kernel_size, strict=True)
        )
        more = F.pad(input, (max(left, 0), max(right, 0), max(top, 0), max(bottom, 0)))
        output = read_layers(more, *self._layers(), self._extent(), "zeros")
        output = F.pad(output, (min(left, 0), min(right, 0), min(top, 0), min(bottom, 0)))
        output = output[..., :: self.stride[0], :: self.stride[1]]
        # Under autocast the output's type is not the bias's.
        return output if self.bias is None else output + self.bias[:, None, None].to(output.dtype)

    def complex(self) -> SparseKernelComplex:
        """The kernels, one for each channel, in float32 at least."""
        return SparseKernelComplex(*self._layers())

    def _layers(self) -> tuple[Tensor, Tensor]:
        return at_least_float32(self.offsets), at_least_float32(self.weights)

    def _extent(self) -> int:
        """How far the kernels reach; a program that is compiled or exported keeps what was the case before."""
        if not (self.offsets.is_meta or torch.compiler.is_compiling()):
            self._reach = reach_of(at_least_float32(self.offsets))
        return self._reach

    __prepare_scriptable__ = refuse_script

    def _load_from_state_dict(self, *arguments) -> None:
        super()._load_from_state_dict(*arguments)
        self._extent()

    @torch.no_grad()
    def keep_as_fitted(self) -> None:
        """From now on `is_identity` tells whether the complexes have changed."""
        self._fitted = (self.offsets.clone(), self.weights.clone())

    def approximate(self, conv: nn.Conv2d, options: SparseOptions) -> None:
        """Fit the kernels to those of ``conv``; until they change, this layer's `is_identity` holds."""
        self.fit(conv.weight, options.steps, seed=options.seed, progress=True)
        self.keep_as_fitted()

    def is_identity(self) -> bool:
        """Whether this is what `keep_as_fitted` saw: not trained, nor loaded, since."""
        pairs = zip(self._fitted, (self.offsets, self.weights), strict=True)
        return all(old is not None and torch.equal(old.to(new), new) for old, new in pairs)

    def extra_repr(self) -> str:
        """Sizes, and the number of reads beside the dense kernel's."""
        channels, layers, samples = self.weights.shape
        dense = self.kernel_size[0] * self.kernel_size[1]
        return (
            f"{channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"{samples}x{layers}: {samples * layers} reads instead of {dense}, bias={self.bias is not None}"
        )
