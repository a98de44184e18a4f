"""What all sampled convolutions share: an `nn.Conv2d` that decides per pixel where it reads."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Signature, signature
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.randers import RandersMetric
from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.nn.config import KindOptions, check_head
from metric_zoo.nn.field import Field, convolve
from metric_zoo.nn.head import PooledHead, PredictionHead, affordable_head, bottleneck_width
from metric_zoo.nn.leaf import Leaf
from metric_zoo.nn.policy import unwanted
from metric_zoo.nn.rule import Reading, Sampling, SamplingRule
from metric_zoo.nn.script import refuse_script
from metric_zoo.nn.standardize import WeightStandardization
from metric_zoo.ops.padding import (
    Padding,
    PaddingMode,
    Pads,
    applied,
    is_open,
    output_size,
    pair,
    resolve_padding,
    sizes_of,
)
from metric_zoo.ops.window import Window

_ROUNDING = 1e-6
"""Pixels. Positions this close are the same."""


def current_key(key: str, layer: str) -> str:
    """A state dict's key as it is today: `SampledConv2d.sampler` was once called ``head``, like a classifier.

    Args:
        key: of a state dict.
        layer: a sampled layer's prefix, with its dot.
    """
    former = f"{layer}head."
    return f"{layer}sampler.{key.removeprefix(former)}" if key.startswith(former) else key


class _Signature:
    """Of the constructor, as `help` and `inspect` show it: the convolution's arguments, then the kind's options."""

    def __get__(self, layer: object, owner: type[SampledConv2d]) -> Signature:
        if layer is not None or owner.__init__ is not SampledConv2d.__init__:
            raise AttributeError("__signature__")
        _, *own = signature(SampledConv2d.__init__).parameters.values()
        last = [p for p in own if p.name in ("device", "dtype")]
        first = [p for p in own if p not in last and p.kind is not p.VAR_KEYWORD]
        return Signature([*first, *owner.options.parameters(), *last])


class SampledConv2d(Leaf, Sampling, nn.Conv2d):
    """Base class. A kind says how many channels its head predicts (`_head_channels`), or makes tables of its own
    (`_build_rule`), and where it samples (`_field`); all else follows.

    ``weight`` and ``bias`` are those of `nn.Conv2d`, so a state dict of the replaced layer loads unchanged. Constructed
    directly, the layer starts as the ordinary convolution with these weights wherever its options allow that.
    ``padding="same"`` is also accepted with a stride (TensorFlow's rule: ``ceil(size / stride)`` pixels).

    Raises:
        UnknownOption: for an option that the kind does not have; it is a `TypeError`, too.
    """

    kind: ClassVar[str]
    options: ClassVar[type[KindOptions]] = KindOptions
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: Padding
    dilation: tuple[int, int]
    config: KindOptions
    sampler: PredictionHead | PooledHead | None
    standardization: WeightStandardization | None = None
    fits_metrics: ClassVar[bool] = False
    """Whether it samples a metric's balls, so that the metric can be fitted to another layer's samples."""
    modulates: ClassVar[bool] = False
    """Whether it multiplies samples by factors of its own."""
    straight: ClassVar[bool] = True
    """Whether balls of its metric, where it has one, are those that straight lines measure."""
    __signature__ = _Signature()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: Padding = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        device=None,
        dtype=None,
        **options: Any,
    ) -> None:
        # Before torch's constructor: what a user got wrong is found before anything is allocated.
        config = self.options.from_options(getattr(self, "kind", type(self).__name__), options)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias, padding_mode, device, dtype
        )
        # nn.Conv2d refuses "same" with a stride; we resolve every padding per call, so only its form is checked here.
        resolve_padding(padding, (1, 1), self.kernel_size, self.stride, self.dilation)
        self.padding = pair(padding, "padding", 0) if isinstance(padding, int) else padding
        self.config = config
        self._build_rule(device, dtype)
        self._check_fit()
        if not self.weight.is_meta:
            self.reset_rule()

    @property
    def head(self) -> PredictionHead | PooledHead | None:
        """The former name of ``sampler``; in no state dict."""
        return self.sampler

    # --- what a kind defines -----------------------------------------------------------------------------------

    def _head_channels(self) -> int:
        """Channels the head predicts; 0 for a kind without a head."""
        return 0

    def _sample_groups(self) -> int:
        """Number of groups of channels that sample at positions of their own."""
        return 1

    def _build_rule(self, device, dtype) -> None:
        """Make what the sampling rule needs: here, a head. Parameters and modules, no buffers: a conversion gives the
        layer those of the convolution."""
        self.sampler = self._build_head(device, dtype)

    def _field(self, input: Tensor, pads: Pads) -> Field:
        """Where this layer samples ``input (B, C, H, W)``, whose borders are ``pads``."""
        raise NotImplementedError

    def metric(self, input: Tensor) -> RandersMetric | None:
        """The metric whose balls are sampled for ``input (B, C, H, W)``, one per output pixel; None without one."""
        return None

    def reach(self) -> float:
        """Pixels that the radius of a unit ball stands for: half of the window's longer side."""
        return float(max(d * (k - 1) / 2 for k, d in zip(self.kernel_size, self.dilation, strict=True)))

    def rule_parameters(self) -> list[nn.Parameter]:
        """Those that decide where the layer samples: as of `metric_zoo.nn.kind.Kind.rule_parameters`."""
        return [] if self.sampler is None else list(self.sampler.parameters())

    def sampling_rule(self) -> SamplingRule:
        """As of `metric_zoo.nn.rule.Sampling`."""
        return SamplingRule(self.kind, self.rule_parameters(), self._is_fresh, self._reading)

    def _is_fresh(self) -> bool:
        """A head's answer to one image says nothing of what it answers to others; a table says it all."""
        return self.is_identity() if self.sampler is None else self.sampler.is_fresh()

    def _reading(self, input: Tensor) -> Reading:
        padded, pads = self._padded(input if input.dim() == 4 else input.unsqueeze(0))
        field, size = self._field(padded, pads), (padded.shape[-2], padded.shape[-1])
        lattice = (self.kernel_size, self.stride, pads, self.dilation)
        window = Window(*lattice, self.groups, output_size(size, *lattice))
        grid = grid_offsets(self.kernel_size, self.dilation).repeat(field.values.shape[1], 1)
        return Reading(field, window, size, len(padded), grid)

    @staticmethod
    def why_not(conv: nn.Module) -> str:
        """As of `metric_zoo.nn.kind.Kind.why_not`."""
        return ""

    unwanted = staticmethod(unwanted)

    @classmethod
    def replacing(cls, conv: nn.Conv2d, padding: Padding, options: Mapping[str, Any]) -> SampledConv2d:
        """As of `metric_zoo.nn.kind.Kind.build`."""
        # Built without storage: only the rule's is allocated, the kernel is the one that is there.
        kernel_size, stride, dilation = sizes_of(conv)
        layer = cls(
            *(conv.in_channels, conv.out_channels, kernel_size, stride, padding, dilation, conv.groups),
            *(conv.bias is not None, conv.padding_mode),
            device="meta",
            dtype=conv.weight.dtype,
            **options,
        )
        for key, value in layer._parameters.items():
            if key not in conv._parameters and value is not None:
                layer._parameters[key] = nn.Parameter(torch.empty_like(value, device=conv.weight.device))
        for key, value in conv._parameters.items():
            layer.register_parameter(key, value)
        for child in layer.children():
            child.to_empty(device=conv.weight.device)
        layer.reset_rule()
        return layer

    def reset_rule(self) -> None:
        """Make the sampling rule start on the ordinary grid: here, a head that predicts it."""
        if self.sampler is not None:
            self.sampler.reset_parameters()

    def reset_parameters(self) -> None:
        """The framework's default for kernel and bias, and a fresh rule: trainers ask it of a layer without values."""
        super().reset_parameters()
        if "config" in vars(self):  # else torch.nn.Conv2d's constructor asks, before there is a rule
            self.reset_rule()

    def reset_rule_as_published(self) -> None:
        """Start the sampling rule as the paper's program does; a head of zeros for all kinds but the metric."""
        self.reset_rule()

    # --- what all share ----------------------------------------------------------------------------------------

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` or ``(C, H, W)`` -> the same with ``out_channels`` and the convolution's output size."""
        if isinstance(input, Proxy):
            return self.recorded(input, input)
        if input.dim() == 3:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        return self._operator(*self._padded(input))

    def _operator(self, input: Tensor, pads: Pads) -> Tensor:
        return convolve(input, self.kernel(), self.bias, self._field(input, pads), self, pads)

    def sample_positions(self, input: Tensor) -> Tensor:
        """Where the layer reads: ``(B, G*K, 2, Ho, Wo)``, (x, y) in pixels relative to each window's centre.

        Args:
            input: ``(B, C, H, W)``, the layer's input.
        """
        input, pads = self._padded(input)
        return self._field(input, pads).positions((input.shape[-2], input.shape[-1]), self, pads)

    def kernel(self) -> Tensor:
        """The weights that multiply the samples: ``weight``, standardised where the original layer did so."""
        if self.standardization is None:
            return self.weight
        return self.standardization(self.weight, getattr(self, "gain", None))

    def reset_uniform(self) -> None:
        """The paper's start: every weight ``1 / (k^2 C_in / groups)``, bias 0, the rule as published."""
        nn.init.constant_(self.weight, 1 / self.weight[0].numel())
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self.reset_rule_as_published()

    @torch.no_grad()
    def is_identity(self) -> bool:
        """Whether the layer equals, for every input, the ordinary convolution with its weights.

        Positions count as equal within a millionth of a pixel: an identity that needs a logarithm (a metric whose
        ``scale`` range is not centred on 1) meets the grid only to rounding.
        """
        if self.sampler is not None and self.sampler.weight.count_nonzero():
            return False
        probe = self.weight.new_zeros(1, self.in_channels, *self.kernel_size)
        pads = Pads(*((d * (k - 1), d * (k - 1)) for k, d in zip(self.kernel_size, self.dilation, strict=True)))
        field = self._field(probe, pads)
        positions = field.positions(self.kernel_size, self, pads)
        grid = grid_offsets(self.kernel_size, self.dilation).to(positions).repeat(self._sample_groups(), 1)
        distance = (positions - grid[..., None, None]).abs().max()
        return bool(distance <= _ROUNDING) and field.counts_fully

    def extra_repr(self) -> str:
        """The convolution's own text, then the kind's options."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.config.to_dict().items() if value is not None)
        return f"{super().extra_repr()}, {options}" if options else super().extra_repr()

    def _padded(self, input: Tensor) -> tuple[Tensor, Pads]:
        """Resolve the padding; one that is not zeros, or open, is applied here, and none is left for the operator."""
        size = (input.shape[-2], input.shape[-1]) if self.padding == "same" else (1, 1)  # any, for all other kinds
        pads = resolve_padding(self.padding, size, self.kernel_size, self.stride, self.dilation)
        zeros = self.padding_mode == "zeros"
        if zeros and not is_open(self.padding, self.stride, size[0]):
            return input, pads
        (top, bottom), (left, right) = pads
        padded = F.pad(input, (left, right, top, bottom), mode="constant" if zeros else self.padding_mode)
        return padded, applied(pads, input)

    def _build_head(self, device, dtype) -> PredictionHead | PooledHead | None:
        channels = self._head_channels()
        if not channels:
            return None
        form, size = getattr(self.config, "head", "full"), getattr(self.config, "head_kernel_size", None)
        check_head(form, size)
        own = self.kernel_size if size is None else (size, size)
        grid = (self.kernel_size, self.stride, self.dilation)
        budget = self.weight.numel()
        width = bottleneck_width(self.in_channels, channels, budget)
        if form == "auto":
            # Dense convolutions and windows that were asked for keep the published head.
            adapt = self.groups > 1 and size is None
            form = affordable_head(self.in_channels, channels, own, budget) if adapt else "full"
        return PredictionHead(self.in_channels, channels, own, *grid, form, width, device=device, dtype=dtype)

    __prepare_scriptable__ = refuse_script

    def _load_from_state_dict(self, state_dict, prefix, *arguments) -> None:
        former = () if "head" in self._modules else [key for key in state_dict if key.startswith(f"{prefix}head.")]
        for key in former:
            state_dict[current_key(key, prefix)] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _check_fit(self) -> None:
        """Raise where options do not fit the sizes.

        Raises:
            MetricZooError: saying which.
        """
        if self.in_channels % self._sample_groups():
            raise MetricZooError(
                f"{type(self).__name__}: {self._sample_groups()} sampling groups do not divide "
                f"in_channels={self.in_channels}"
            )
