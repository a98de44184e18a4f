"""A large kernel as a few sparse layers."""

from __future__ import annotations

import os
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.files import replacing
from metric_zoo.ops.blending import row_window
from metric_zoo.ops.layout import is_channels_last
from metric_zoo.ops.sampled import sampled_conv2d
from metric_zoo.sparse.fit import STEPS, check_target, optimize
from metric_zoo.sparse.initialize import SPARSE, initial_offsets
from metric_zoo.sparse.loss import loss_for
from metric_zoo.sparse.render import compose, layer_kernels, resize

PADDING_MODES = {"zeros": "constant", "replicate": "replicate", "reflect": "reflect", "circular": "circular"}

_TYPES = (torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class SparseKernelComplex:
    r"""L sparse layers, one after the other, in place of a dense kernel of M x M.

    .. math:: out = ((x \star K_1) \star K_2) \dots \star K_L, \quad (x \star K_l)(p) = \sum_i w_{l,i}\, x(p + o_{l,i})

    with bilinear reads: :math:`L N` of them a pixel instead of :math:`M^2` (DISK, ICLR 2026,
    https://arxiv.org/abs/2512.04556). As everywhere in torch
    a kernel is correlated with the image; its impulse response is the kernel turned by 180 degrees.

    Differentiable in the image, the offsets and the weights. What a complex approximates must be known: it is fitted to
    a kernel, not learned from images.

    Attributes:
        offsets: ``(*, L, N, 2)``, (x, y) in pixels, float32 or float64.
        weights: ``(*, L, N)``, of the same dtype and device.

    Raises:
        MetricZooError: when shapes, dtypes or devices do not fit together, or a value is not finite.
    """

    offsets: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        offsets, weights = self.offsets, self.weights
        if offsets.dim() < 3 or offsets.shape[-1] != 2 or offsets.shape[:-1] != weights.shape or 0 in weights.shape:
            raise MetricZooError(
                f"offsets {tuple(offsets.shape)}, weights {tuple(weights.shape)}: expected (*, L, N, 2) and (*, L, N)"
            )
        if (offsets.dtype, offsets.device) != (weights.dtype, weights.device) or offsets.dtype not in _TYPES:
            raise MetricZooError(
                f"offsets are {offsets.dtype} on {offsets.device}, weights {weights.dtype} on {weights.device}: "
                "expected both in float32 or float64 on one device"
            )
        for name, tensor in (("offsets", offsets), ("weights", weights)):
            if not tensor.is_meta and not bool(tensor.isfinite().all()):
                raise MetricZooError(f"{name} hold {int((~tensor.isfinite()).sum())} values that are not finite")

    @classmethod
    def fit(
        cls,
        target: Tensor,
        samples: int = 24,
        layers: int = 4,
        init: str | SparseKernelComplex = SPARSE,
        steps: int = STEPS,
        *,
        loss: str | None = None,
        seed: int = 0,
        signed: bool = False,
        progress: bool = False,
    ) -> SparseKernelComplex:
        """Fit to one kernel or to many at once, on their device.

        Source: DISK, ICLR 2026, image-free fitting, with another loss; see `metric_zoo.sparse.fit.optimize`.

        Args:
            target: ``(M, M)`` or ``(T, M, M)``, M odd; what `torch.nn.functional.conv2d` would be given.
            samples: N, of each layer.
            layers: L.
            init: of `INITS`, or a complex to begin with (or one for each target), which then says how many samples and
                layers there are.
            steps: of Adam.
            loss: ``"charbonnier"`` is that of the paper; ``"natural"`` counts what shows in photographs, too. None is
                the first for ``signed`` kernels, and the second for others.
            seed: of the initialisation; the rest is deterministic.
            signed: whether the kernels may have negative values; their sums and centroids are then learned, too.
            progress: show a bar, after two seconds.

        Returns:
            With offsets ``(L, N, 2)`` or ``(T, L, N, 2)`` in the target's dtype, at least float32.

        Raises:
            MetricZooError: for a target that is empty, negative, not square, of even size or not finite, fewer than
                3 samples a layer, or an unknown init or loss.
        """
        if target.dim() == 2:
            one = cls.fit(target[None], samples, layers, init, steps, loss=loss, seed=seed, signed=signed,
                          progress=progress)  # fmt: skip
            return one[0]
        check_target(target, signed)
        if steps < 1:
            raise MetricZooError(f"steps={steps}: expected 1 or more")
        measure = loss_for(loss, signed)
        target = target.to(torch.promote_types(target.dtype, torch.float32))
        if isinstance(init, SparseKernelComplex):
            start = _given(target, init, signed)
        else:
            start = _start(target, samples, layers, init, seed)
        return cls(*optimize(target, *start, measure, steps, signed=signed, progress=progress))

    @property
    def layers(self) -> int:
        """L."""
        return self.weights.shape[-2]

    @property
    def samples(self) -> int:
        """N, of each layer."""
        return self.weights.shape[-1]

    @property
    def reads(self) -> int:
        """Of a pixel, in all layers."""
        return self.layers * self.samples

    @property
    def reach(self) -> int:
        """Pixels that the kernel extends from its middle at most, of all complexes together."""
        return reach_of(self.offsets)

    def __getitem__(self, index) -> SparseKernelComplex:
        """Of several complexes one, or some."""
        if self.weights.dim() == 2:
            raise TypeError("this is one complex, not several")
        return SparseKernelComplex(self.offsets[index], self.weights[index])

    def to(self, *args, **kwargs) -> SparseKernelComplex:
        """On another device, or in another dtype; the arguments of `torch.Tensor.to`."""
        return SparseKernelComplex(self.offsets.to(*args, **kwargs), self.weights.to(*args, **kwargs))

    def kernel(self, size: int | None = None) -> Tensor:
        """The dense kernel that this equals, ``(*, size, size)``.

        Args:
            size: odd; None is the least that holds all of it, ``2 * reach + 1``.

        Raises:
            MetricZooError: for an even size.
        """
        whole = 2 * self.reach + 1
        if size is not None and (size < 1 or size % 2 == 0):
            raise MetricZooError(f"size={size}: an even kernel has no pixel in its middle")
        return resize(compose(layer_kernels(self.offsets, self.weights, whole)), whole if size is None else size)

    def apply(self, image: Tensor, padding_mode: str = "replicate") -> Tensor:
        """Filter an image; up to rounding what a dense convolution with `kernel` of the padded image yields.

        Args:
            image: ``(B, C, H, W)``. One complex serves all channels; C of them one channel each.
            padding_mode: of `PADDING_MODES`: what lies outside of the image.

        Returns:
            ``(B, C, H, W)``.

        Raises:
            MetricZooError: for another number of complexes, or a kernel larger than the image (but with ``"zeros"``).
        """
        check_image(image)
        if self.weights.dim() > 3 or (self.weights.dim() == 3 and image.shape[1] != len(self.weights)):
            raise MetricZooError(
                f"{tuple(self.weights.shape[:-2])} complexes for {image.shape[1]} channels: expected one or as many"
            )
        return read_layers(image, self.offsets, self.weights, self.reach, padding_mode)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file of safetensors, whole or not at all.

        Raises:
            MetricZooError: if it cannot be written.
        """
        save_tensors({"offsets": self.offsets, "weights": self.weights}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SparseKernelComplex:
        """Read what `save` wrote.

        Raises:
            MetricZooError: if the file cannot be read or holds something else.
        """
        return cls(**load_tensors(path, {"offsets", "weights"}))


def reach_of(offsets: Tensor) -> int:
    """Pixels that layers ``(*, L, N, 2)`` come from the middle at most, one after the other."""
    layers = offsets.detach().abs().amax((-2, -1)).ceil().reshape(-1, offsets.shape[-3])
    return int(layers.amax(0).sum().nan_to_num())


def read_layers(image: Tensor, offsets: Tensor, weights: Tensor, reach: int, padding_mode: str) -> Tensor:
    """All layers in turn, ``(B, C, H, W)`` to the same; `SparseKernelComplex.apply` without its checks."""
    # Channels with kernels of their own are read one by one.
    padded = padded_for(image if offsets.dim() == 3 else image.contiguous(), reach, padding_mode)
    for own_offsets, own_weights in zip(offsets.unbind(-3), weights.unbind(-2), strict=True):
        padded = _read(padded, own_offsets, own_weights)
    output = cropped(padded, reach)
    return output.contiguous(memory_format=torch.channels_last) if is_channels_last(image) else output


def padded_for(image: Tensor, reach: int, padding_mode: str) -> Tensor:
    """``(B, C, H + 2 reach, W + 2 reach)``: so that layers which see zeros outside never reach the image itself.

    Raises:
        MetricZooError: for an unknown mode, an image of another form, or one smaller than the kernel.
    """
    if padding_mode not in PADDING_MODES:
        raise MetricZooError(f"unknown padding_mode {padding_mode!r}; known: {tuple(PADDING_MODES)}")
    check_image(image)
    side = 2 * reach + 1
    if padding_mode != "zeros" and side > min(image.shape[-2:]):
        height, width = image.shape[-2:]
        raise MetricZooError(f"a kernel of {side} x {side} pixels is larger than the image of {height} x {width}")
    return F.pad(image, (reach,) * 4, mode=PADDING_MODES[padding_mode])


def check_image(image: Tensor) -> None:
    """Raise unless it is ``(B, C, H, W)`` of a floating-point type.

    Raises:
        MetricZooError: with its shape and dtype.
    """
    if image.dim() != 4 or not image.is_floating_point():
        raise MetricZooError(
            f"image has shape {tuple(image.shape)} and dtype {image.dtype}: expected (B, C, H, W), floating-point"
        )


def cropped(padded: Tensor, reach: int) -> Tensor:
    """Without the border that `padded_for` added."""
    height, width = padded.shape[-2:]
    return padded[..., reach : height - reach, reach : width - reach]


def save_tensors(tensors: dict[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write a file of safetensors, whole or not at all.

    Raises:
        MetricZooError: if it cannot be written.
    """
    path = Path(path)
    try:
        with replacing(path) as temporary:
            safetensors.torch.save_file(
                {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, temporary
            )
    except (OSError, SafetensorError) as error:
        raise MetricZooError(f"{path} cannot be written: {error}") from None


def load_tensors(path: str | os.PathLike[str], names: set[str], more: Set[str] = frozenset()) -> dict[str, Tensor]:
    """Read a file of safetensors that holds tensors of these names, and perhaps ``more``.

    Raises:
        MetricZooError: if the file cannot be read or holds something else.
    """
    try:
        found = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise MetricZooError(f"{path} cannot be read: {error}") from None
    if not names <= set(found) <= names | more:
        raise MetricZooError(f"{path} holds {sorted(found)}, expected {sorted(names)}")
    return found


def _start(target: Tensor, samples: int, layers: int, init: str, seed: int) -> tuple[Tensor, Tensor]:
    if samples < 3 or layers < 1:
        raise MetricZooError(f"samples={samples}, layers={layers}: expected 3 or more, and 1 or more")
    offsets = torch.stack([initial_offsets(init, kernel.cpu(), samples, layers, seed) for kernel in target])
    return offsets.to(target), target.new_full((len(target), layers, samples), 1 / samples)


def _given(target: Tensor, init: SparseKernelComplex, signed: bool) -> tuple[Tensor, Tensor]:
    """Complexes as they are fitted: to kernels whose absolute values have the sum 1; so have, unless signed, those of
    every layer.

    Raises:
        MetricZooError: for several, but not one for each target.
    """
    offsets, weights = init.offsets.to(target), init.weights.to(target)
    if weights.dim() == 2:
        offsets, weights = (t.expand(len(target), *t.shape) for t in (offsets, weights))
    if len(weights) != len(target):
        raise MetricZooError(f"init holds {len(weights)} complexes for {len(target)} targets")
    if not signed:
        return offsets, weights / weights.abs().sum(-1, keepdim=True)
    sums = target.abs().sum((-2, -1))
    return offsets, torch.cat((weights[:, :-1], weights[:, -1:] / sums[:, None, None]), dim=1)


def _read(image: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """One layer: ``(N, 2)`` and ``(N,)`` for all channels, or ``(C, N, 2)`` and ``(C, N)``. Zeros outside."""
    channels, samples = image.shape[1], weights.shape[-1]
    padding, shift = row_window(samples)
    positions = (offsets - offsets.new_tensor((shift, 0.0))).reshape(1, -1, 2, 1, 1)
    weight = weights.expand(channels, samples).reshape(channels, 1, 1, samples)
    return sampled_conv2d(image, weight.to(image.dtype), positions, padding=padding, groups=channels)
