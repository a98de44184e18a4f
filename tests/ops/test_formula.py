"""Rules in which a few numbers a window say where its samples lie: maps, snakes, stars and Zermelo's ellipses."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
import torchvision

from metric_zoo import MetricZooError, ops
from metric_zoo.geometry import metric_from_raw
from metric_zoo.ops.backends.native import library
from metric_zoo.ops.padding import output_size, resolve_padding

# kernel, stride, padding, dilation, groups, channels in, out, fields
CASES = [
    ((3, 3), 1, 1, 1, 1, 4, 6, 1),
    ((3, 3), 2, 1, 1, 1, 4, 6, 2),
    ((3, 5), (1, 2), (2, 4), (2, 1), 2, 4, 6, 1),
    ((4, 4), 1, 2, 1, 4, 4, 4, 2),
    ((7, 7), 1, 3, 1, 6, 6, 6, 3),
]


def grid(kernel, dilation) -> np.ndarray:
    """(K, 2), (x, y), row by row."""
    rows, columns = (d * (np.arange(k) - (k - 1) / 2) for k, d in zip(kernel, dilation, strict=True))
    return np.array([(x, y) for y in rows for x in columns])


def mapped(matrix, shift):
    """(K, 2, ...) offsets of the cells at ``g`` under A g + t."""
    return lambda g: np.einsum("ij...,kj->ki...", matrix, g) + shift - g.reshape(*g.shape, *(1,) * (shift.ndim - 1))


def affine(f, g, kernel):
    return mapped(np.stack((np.stack((1 + f[0], f[1])), np.stack((f[2], 1 + f[3])))), f[4:])(g)


def similar(f, g, kernel):
    return mapped(np.stack((np.stack((1 + f[0], -f[1])), np.stack((f[1], 1 + f[0])))), f[2:])(g)


def symmetric(f, g, kernel):
    return mapped(np.stack((np.stack((1 + f[0], f[1])), np.stack((f[1], 1 + f[2])))), f[3:])(g)


def snake(f, g, kernel, axis="x"):
    """Walks outward from the middle of every row (or column), one sum at a time."""
    height, width = kernel
    moved, steps = np.zeros((height * width, *f.shape[1:])), iter(f)
    if axis == "y":
        steps = iter(f)
    taken = {}
    for y in range(height):
        for x in range(width):
            along, length = (x, width) if axis == "x" else (y, height)
            if abs(along - (length - 1) / 2) >= 1:
                taken[y, x] = next(steps)
    for y, x in taken:
        at, length = (x, width) if axis == "x" else (y, height)
        while abs(at - (length - 1) / 2) >= 1:
            moved[y * width + x] += taken[(y, at) if axis == "x" else (at, x)]
            at += 1 if at < (length - 1) / 2 else -1
    still = np.zeros_like(moved)
    return np.stack((still, moved) if axis == "x" else (moved, still), 1)


def star(f, g, kernel, order=2, shift=False):
    angle = np.arctan2(g[:, 1], g[:, 0])
    log = f[:1] + 0 * angle.reshape(-1, *(1,) * (f.ndim - 1))
    for n in range(1, order + 1):
        for number, wave in ((f[2 * n - 1], np.cos(n * angle)), (f[2 * n], np.sin(n * angle))):
            log = log + wave.reshape(-1, *(1,) * (f.ndim - 1)) * number
    placed = np.exp(log)[:, None] * g.reshape(*g.shape, *(1,) * (f.ndim - 1))
    return placed + (f[-2:] if shift else 0) - g.reshape(*g.shape, *(1,) * (f.ndim - 1))


def moving(kernel, axis="x") -> int:
    along, across = (kernel[1], kernel[0]) if axis == "x" else kernel
    return across * (along - 2 + along % 2)


RULES = {
    "affine": (ops.affine_conv2d, affine, lambda kernel: 6),
    "similar": (partial(ops.affine_conv2d, form="similar"), similar, lambda kernel: 4),
    "symmetric": (partial(ops.affine_conv2d, form="symmetric"), symmetric, lambda kernel: 5),
    "snake x": (ops.snake_conv2d, snake, moving),
    "snake y": (partial(ops.snake_conv2d, axis="y"), partial(snake, axis="y"), partial(moving, axis="y")),
    "star": (ops.star_conv2d, star, lambda kernel: 5),
    "star, order 3, shifted": (
        partial(ops.star_conv2d, order=3, shift=True), partial(star, order=3, shift=True), lambda kernel: 9
    ),
}  # fmt: skip


def tensors(case, numbers: int, dtype=torch.float64):
    kernel, stride, padding, dilation, groups, c_in, c_out, fields = case
    stride, dilation = ((v, v) if isinstance(v, int) else v for v in (stride, dilation))
    size = output_size((11, 9), kernel, stride, resolve_padding(padding, (11, 9), kernel, stride, dilation), dilation)
    x, weight = torch.randn(2, c_in, 11, 9, dtype=dtype), torch.randn(c_out, c_in // groups, *kernel, dtype=dtype)
    return x, 0.4 * torch.randn(2, numbers * fields, *size, dtype=dtype), weight, (stride, padding, dilation, groups)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_torchvisions_deformation_with_its_offsets_written_out(rule, case):
    function, offsets_of, numbers = RULES[rule]
    x, field, weight, (stride, padding, dilation, groups) = tensors(case, numbers(case[0]))
    g = grid(case[0], dilation)
    each = field.numpy().reshape(2, case[-1], -1, *field.shape[2:]).transpose(2, 0, 1, 3, 4)  # numbers first
    found = offsets_of(each, g, case[0])  # (K, 2, B, G, Ho, Wo)
    offset = torch.from_numpy(found[:, ::-1].transpose(2, 3, 0, 1, 4, 5).reshape(2, -1, *field.shape[2:]).copy())
    expected = torchvision.ops.deform_conv2d(x, offset, weight, None, stride, padding, dilation)
    y = function(x, field, weight, None, stride, padding, dilation, groups)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    y32 = function(x.float(), field.float(), weight.float(), None, stride, padding, dilation, groups)
    assert (y32 - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES)
def test_zeros_are_conv2d(rule, dtype, backend):
    """Exactly where it samples, in the fused backend: values beside a pixel, infinity too, do not matter."""
    function, _, numbers = RULES[rule]
    x, field, weight, options = tensors(CASES[0], numbers((3, 3)), dtype)
    if backend == "native":
        x[0, 0, 5, 5] = torch.inf
    expected = F.conv2d(x, weight, None, *options)
    y = function(x, torch.zeros_like(field), weight, None, *options)
    finite = expected.isfinite()
    assert torch.equal(y.isfinite(), finite)
    assert (y - expected)[finite].abs().max() <= 100 * torch.finfo(dtype).eps * expected[finite].abs().max()


@pytest.mark.parametrize("rule", RULES)
def test_gradients_against_finite_differences(rule):
    function, _, numbers = RULES[rule]
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    field = (0.3 * torch.randn(1, numbers((3, 3)), 4, 4, dtype=torch.float64)).requires_grad_()
    # The middle cells of a snake stay on the pixels, with no gradient to speak of.
    assert torch.autograd.gradcheck(lambda *t: function(*t, padding=1), (x, field, weight))


@pytest.mark.parametrize("rule", RULES)
def test_gradients_are_those_of_positions_written_out(rule):
    """On every shape: the oracle is torchvision's gradient of the offsets, through the framework's own chain rule."""
    function, _, numbers = RULES[rule]
    for case in CASES[1:]:
        x, field, weight, options = tensors(case, numbers(case[0]))
        field.requires_grad_()
        step = torch.randn_like(field)
        y = function(x, field, weight, None, *options)
        upstream = torch.randn_like(y)
        (grad,) = torch.autograd.grad(y, field, upstream)
        ahead, behind = (function(x, field.detach() + s * step, weight, None, *options) for s in (1e-7, -1e-7))
        slope = ((ahead - behind) / 2e-7 * upstream).sum()
        assert (grad * step).sum().item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-5)


def test_nan_spoils_its_pixel_only():
    for function, _, numbers in RULES.values():
        x, weight, field = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3), torch.zeros(2, numbers((3, 3)), 6, 6)
        field[1, -1, 2, 3] = torch.nan
        spoiled = function(x, field, weight, padding=1).isnan()
        assert spoiled[1, :, 2, 3].all() and spoiled.sum() == 4


def test_a_radius_is_bounded():
    x, weight = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)
    field = torch.zeros(1, 5, 5, 5)
    field[:, 0] = 1e4
    field.requires_grad_()
    y = ops.star_conv2d(x, field, weight, padding=1)
    torch.testing.assert_close(y, F.conv2d(x, weight[:, :, 1:2, 1:2]), rtol=1e-5, atol=1e-5)  # the centre alone is left
    y.sum().backward()
    assert field.grad.isfinite().all()


@pytest.mark.parametrize(("dtype", "roundings"), [(torch.float32, 3), (torch.float64, 40)], ids=str)
def test_the_radius_is_numpys_exponential(dtype, roundings):
    """Of the compiled library. Read off a ramp of pixels, by the sample right of the first one."""
    if not library.is_available():
        pytest.skip(library.why_unavailable())
    log = torch.linspace(-80, 6.9, 1500, dtype=dtype)
    ramp = torch.arange(1000, dtype=dtype).expand(len(log), 1, 1, -1)
    weight, field = torch.tensor([0, 0, 1], dtype=dtype).view(1, 1, 1, 3), torch.zeros(len(log), 3, 1, 1, dtype=dtype)
    field[:, 0, 0, 0] = log
    with ops.use_backend("native"):
        read = ops.star_conv2d(ramp, field, weight, None, (1, 2000), ((0, 0), (1, 1)), order=1).flatten()
    np.testing.assert_allclose(read.numpy(), np.exp(log.double().numpy()), rtol=roundings * torch.finfo(dtype).eps)


def ellipse_positions(packed: torch.Tensor, g: np.ndarray) -> np.ndarray:
    """Zermelo's map, pixel by pixel, by scipy's matrix functions: (K, 2, B, G, H, W)."""
    fields = packed.numpy().reshape(packed.shape[0], -1, 5, *packed.shape[2:])
    found = np.empty((len(g), 2, *fields.shape[:2], *fields.shape[3:]))
    for at in np.ndindex(fields.shape[0], fields.shape[1], *fields.shape[3:]):
        m11, m12, m22, *omega = fields[at[0], at[1], :, at[2], at[3]]
        matrix, omega = np.array([[m11, m12], [m12, m22]]), np.array(omega)
        rest = 1 - omega @ np.linalg.solve(matrix, omega)
        root = np.linalg.inv(scipy.linalg.sqrtm(rest * (matrix - np.outer(omega, omega))).real)
        found[(slice(None), slice(None), *at)] = g @ root.T - np.linalg.solve(matrix, omega) / rest
    return found


@pytest.mark.parametrize("case", CASES[1:3], ids=str)
def test_zermelo_sampling_is_torchvisions_deformation(case):
    kernel = case[0]
    x, field, weight, (stride, padding, dilation, groups) = tensors(case, 7)
    packed = metric_from_raw(field).packed
    g = grid(kernel, dilation)
    offset = ellipse_positions(packed, g) - g[..., None, None, None, None]
    offset = torch.from_numpy(offset[:, ::-1].transpose(2, 3, 0, 1, 4, 5).reshape(2, -1, *field.shape[2:]).copy())
    expected = torchvision.ops.deform_conv2d(x, offset, weight, None, stride, padding, dilation)
    y = ops.metric_conv2d(x, weight, packed, None, stride, padding, dilation, groups, sampling="zermelo")
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)


def test_gradients_of_zermelo_sampling_against_finite_differences():
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    packed = metric_from_raw(torch.randn(1, 7, 4, 4, dtype=torch.float64)).packed.requires_grad_()
    function = lambda x, w, m: ops.metric_conv2d(x, w, m, padding=1, sampling="zermelo")  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, weight, packed))


BAD = {
    "form": (partial(ops.affine_conv2d, form="afine"), 6, (3, 3), "form='afine': .* did you mean 'affine'"),
    "channels of a map": (ops.affine_conv2d, 7, (3, 3), r"map has shape \(1, 7, 6, 6\), expected \(1, 6\*G, 6, 6\)"),
    "axis": (partial(ops.snake_conv2d, axis="z"), 6, (3, 3), "axis='z': expected one of"),
    "nothing to bend": (ops.snake_conv2d, 1, (3, 1), "axis='x': a kernel of 3x1 has no cells beside its middle"),
    "one cell": (ops.star_conv2d, 5, (1, 1), "a kernel of 1x1 has no cell beside its middle to move"),
    "order": (partial(ops.star_conv2d, order=0), 5, (3, 3), "order=0: expected a whole number >= 1"),
    "harmonics": (partial(ops.star_conv2d, order=1), 5, (3, 3), r"harmonics has shape .*, expected \(1, 3\*G"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "numbers", "kernel", "message"), BAD.values(), ids=BAD)
def test_errors_name_what_does_not_fit(function, numbers, kernel, message):
    x, weight = torch.zeros(1, 4, 6, 6), torch.zeros(2, 4, *kernel)
    with pytest.raises(MetricZooError, match=message):
        function(x, torch.zeros(1, numbers, 6, 6), weight, padding=((kernel[0] // 2,) * 2, (kernel[1] // 2,) * 2))
