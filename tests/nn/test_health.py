"""Sampling health: closed forms, and numpy's percentiles of the positions that layers tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import metric_zoo as mz
from metric_zoo.nn import health
from metric_zoo.nn.registry import get_kind
from tests.converters import deformable
from tests.kinds import LEARNED, LOSSLESS, SAMPLED, WITH_HEADS, disturb, options_of

GEOMETRIES = {
    "padded": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": 3, "padding": 2, "stride": (2, 3)},
    "dilated": {"kernel_size": (3, 5), "padding": (1, 2), "dilation": (1, 2)},
    "even": {"kernel_size": 4, "padding": "same"},
    "uneven": {"kernel_size": 3, "padding": ((0, 3), (1, 0))},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 2},
    "reflected": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
}
PADS = {"padded": (1, 1), "strided": (2, 2), "dilated": (1, 2), "even": (1, 1), "uneven": (0, 1), "grouped": (1, 1)}
"""Rows above and columns left; a reflected image is padded before it is read."""


def sampled(kind: str, **options) -> mz.nn.SampledConv2d:
    """With a rule that moves its samples far."""
    return disturb(SAMPLED[kind](4, 8, **options), 0.5)


def expected(layer: mz.nn.SampledConv2d, input: torch.Tensor, before: tuple[int, int]) -> dict[str, float]:
    """By numpy, of the positions that the layer tells."""
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    positions = layer.sample_positions(input).detach().double().expand(len(input), -1, -1, -1, -1).numpy()
    row, column = np.divmod(np.arange(kh * kw), kw)
    grid = np.stack(((column - (kw - 1) / 2) * dw, (row - (kh - 1) / 2) * dh), 1)
    moved = np.linalg.norm(positions - np.tile(grid, (layer._sample_groups(), 1))[..., None, None], axis=2)
    x = positions[:, :, 0] + np.arange(positions.shape[-1]) * sw - before[1] + (kw - 1) / 2 * dw
    y = positions[:, :, 1] + (np.arange(positions.shape[-2]) * sh - before[0] + (kh - 1) / 2 * dh)[:, None]
    height, width = input.shape[-2:]
    if layer.padding_mode != "zeros":
        height, width = height + 2, width + 2
    outside = (x < -1) | (x > width) | (y < -1) | (y > height)
    figures = {"mean": moved.mean(), "p99": np.percentile(moved, 99), "maximum": moved.max(), "outside": outside.mean()}
    return {name: pytest.approx(float(value), rel=1e-4, abs=1e-5) for name, value in figures.items()}


def figures(layer: health.LayerHealth) -> dict[str, float]:
    return {name: getattr(layer, name) for name in ("mean", "p99", "maximum", "outside")}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("kind", ["deformable", "metric", "active"])
def test_figures_are_those_of_the_positions(kind, geometry):
    groups = {name: 2 for name in options_of(kind) if name.endswith("_groups")}
    layer, input = sampled(kind, **GEOMETRIES[geometry], **groups), torch.randn(3, 4, 11, 10)
    found = mz.nn.sampling_health(nn.Sequential(layer), input).layers["0"]
    assert figures(found) == expected(layer, input, PADS.get(geometry, (0, 0)))
    assert found.outside > 0 or kind == "active"  # whose few offsets may all lead inside
    assert found.samples == layer.sample_positions(input)[0, :, 0].numel() * len(input)


@pytest.mark.parametrize("kind", SAMPLED)
def test_every_kind_has_figures(kind):
    layer, input = sampled(kind, kernel_size=3, padding=1), torch.randn(2, 4, 6, 6)
    found = mz.nn.sampling_health(nn.Sequential(layer), input).layers["0"]
    assert figures(found) == expected(layer, input, (1, 1)) and found.kind == kind
    assert found.never_moved is (False if kind in LEARNED else None) and found.learns == (kind in LEARNED)


@pytest.mark.parametrize("pieces", [1, 50, 10**9])
def test_pieces_make_the_same_figures(pieces, monkeypatch):
    """A window's row at a time, several, and all at once."""
    monkeypatch.setattr(health, "_AT_ONCE", pieces)
    layer, input = sampled("modulated", kernel_size=3, padding=1), torch.randn(4, 4, 9, 8)
    found = mz.nn.sampling_health(nn.Sequential(layer), input).layers["0"]
    assert figures(found) == expected(layer, input, (1, 1))


@pytest.mark.parametrize("samples", [1, 2, 100, 101, 5000])
def test_the_percentile_is_numpys(samples):
    distances = torch.rand(samples, dtype=torch.float64)
    found = health._Displacements(samples)
    for part in distances.split(7):
        found.add(part, part < 1)
    assert found.high(found.largest()) == pytest.approx(np.percentile(distances.numpy(), 99), rel=1e-12)


def test_a_shift_has_a_closed_form():
    """3 pixels to the right, 4 down."""
    layer = mz.nn.ShiftedConv2d(3, 8, 1)
    layer.sampler.bias.data = torch.tensor([4.0, 3.0])  # y, x
    found = mz.nn.sampling_health(nn.Sequential(layer), torch.randn(2, 3, 10, 12))
    assert (found.mean, found.p99, found.maximum) == (5, 5, 5)
    # Columns 0..11 come to 3..14: 13 and 14 lie beyond 12. Rows 0..9 come to 4..13: 11, 12 and 13 lie beyond 10.
    assert found.outside == pytest.approx(1 - 10 / 12 * 7 / 10)
    assert not found.layers["0"].passes_image and not found.layers["0"].is_stuck


def test_what_passes_the_image_is_told():
    """An image of 10 x 12: its longer side counts."""
    layer = mz.nn.ShiftedConv2d(3, 8, 1)
    for shift, passes in ((12.0, False), (12.1, True), (float("nan"), True), (float("inf"), True)):
        layer.sampler.bias.data = torch.tensor([0.0, shift])
        found = mz.nn.sampling_health(nn.Sequential(layer), torch.randn(1, 3, 10, 12))
        assert found.layers["0"].passes_image is passes and ("passes the image" in str(found)) is passes
        assert found.outside == (1 if passes or shift == 12.1 else 11 / 12)
    assert np.isinf(found.maximum)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_fresh_rule_has_never_moved(kind):
    layer, input = SAMPLED[kind](4, 8, 3, padding=1), torch.randn(2, 4, 9, 9)
    found = mz.nn.sampling_health(nn.Sequential(layer), input)
    assert found.never_moved == 1 and found.maximum <= 1e-6 and found.layers["0"].is_stuck
    layer(input).square().sum().backward()
    with torch.no_grad():
        for parameter in get_kind(kind).rule_parameters(layer):
            parameter -= 1e-3 * parameter.grad.sign()
    found = mz.nn.sampling_health(nn.Sequential(layer), input)
    assert found.never_moved == 0 and found.maximum > 1e-6 and not found.layers["0"].is_stuck


@pytest.mark.parametrize("kind", WITH_HEADS)
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_head_has_moved_by_one_number(kind, name):
    layer = SAMPLED[kind](4, 8, 3, padding=1)
    with torch.no_grad():
        getattr(layer.sampler, name).view(-1)[-1] += 1e-7
    assert mz.nn.sampling_health(nn.Sequential(layer), torch.randn(1, 4, 9, 9)).never_moved == 0


@pytest.mark.parametrize("sampling", ["polar", "onion"])
def test_other_samplings_of_a_ball_may_not_have_moved_either(sampling):
    """Their samples are not on the grid from the start."""
    layer = mz.nn.MetricConv2d(4, 8, 3, padding=1, sampling=sampling)
    found = mz.nn.sampling_health(nn.Sequential(layer), torch.randn(1, 4, 9, 9)).layers["0"]
    assert found.never_moved and found.maximum > 0.1 and found.is_stuck
    layer.reset_rule_as_published()
    assert mz.nn.sampling_health(nn.Sequential(layer), torch.randn(1, 4, 9, 9)).never_moved == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_fresh_rule_of_another_dtype_has_never_moved(dtype):
    layer = mz.nn.MetricConv2d(4, 8, 3, padding=1, dtype=dtype, scale=(0.1, 1.5))
    assert mz.nn.sampling_health(nn.Sequential(layer), torch.randn(1, 4, 9, 9, dtype=dtype)).never_moved == 1


def test_rules_that_do_not_learn_are_not_stuck():
    frozen, fixed = mz.nn.DeformConv2d(4, 4, 3, padding=1), mz.nn.DilatedConv2d(4, 4, 3, padding=1, factor=1)
    frozen.requires_grad_(False)
    found = mz.nn.sampling_health(nn.Sequential(frozen, fixed), torch.randn(1, 4, 9, 9))
    assert [layer.is_stuck for layer in found.layers.values()] == [False, False]
    assert [layer.never_moved for layer in found.layers.values()] == [True, None] and found.never_moved == 1
    fixed = mz.nn.DilatedConv2d(4, 4, 3, padding=1)
    found = mz.nn.sampling_health(nn.Sequential(fixed), torch.randn(1, 4, 9, 9))
    assert found.never_moved is None and found.maximum == pytest.approx(2**0.5)


class Twice(nn.Module):
    """Calls one layer twice, one never, and draws no conclusion from either."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other = disturb(mz.nn.ShiftedConv2d(4, 4, 3, padding=1)), mz.nn.ShiftedConv2d(4, 4, 3)
        self.drop, self.norm = nn.Dropout(), nn.BatchNorm2d(4)

    def forward(self, input: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.first(self.drop(self.norm(self.first(input * scale))))


def test_a_model_is_left_as_it_was():
    model, input = Twice(), torch.randn(2, 4, 9, 9)
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, random = [module.training for module in model.modules()], torch.get_rng_state()
    found = mz.nn.sampling_health(model, input, scale=2.0)
    assert list(found.layers) == ["first"]
    assert figures(found.layers["first"]) == expected(model.first, 2 * input, (1, 1))  # of the first call
    assert modes == [module.training for module in model.modules()] and torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_compiled_model_is_measured():
    """Its program is left as it is: made again with a look in it, it would be no whole graph."""
    model, input = nn.Sequential(sampled("deformable", kernel_size=3, padding=1)).eval(), torch.randn(2, 4, 9, 9)
    layer, whole = model[0], torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        whole(input)
    assert figures(mz.nn.sampling_health(whole, input).layers["_orig_mod.0"]) == expected(layer, input, (1, 1))
    model.compile(backend="eager", fullgraph=True)
    with torch.no_grad():
        model(input)
    assert figures(mz.nn.sampling_health(model, input).layers["0"]) == expected(layer, input, (1, 1))


def test_one_image_without_a_batch():
    layer, input = sampled("deformable", kernel_size=3, padding=1), torch.randn(4, 9, 9)
    found = mz.nn.sampling_health(nn.Sequential(layer), input).layers["0"]
    assert figures(found) == expected(layer, input[None], (1, 1))


@pytest.mark.parametrize(
    ("model", "input", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3)), torch.zeros(1, 3, 8, 8), "Sequential has no sampled layer: convert it"),
        (nn.Sequential(mz.nn.ShiftedConv2d(3, 4, 3)), torch.zeros(0, 3, 8, 8), "calls none of its 1 sampled layers"),
    ],
    ids=["plain", "empty"],
)
def test_where_there_is_nothing_to_measure(model, input, message):
    with pytest.raises(mz.MetricZooError, match=message):
        mz.nn.sampling_health(model, input)


def test_layers_together_and_as_a_table():
    """Displacements of 5 px in the first, 0 in the second, which has a quarter of the samples."""
    model = nn.Sequential(mz.nn.ShiftedConv2d(3, 4, 1), nn.AvgPool2d(2), mz.nn.ShiftedConv2d(4, 4, 1))
    model[0].sampler.bias.data = torch.tensor([4.0, 3.0])
    found = mz.nn.sampling_health(model, torch.zeros(1, 3, 40, 40))
    assert (found.mean, found.p99, found.maximum, found.never_moved) == (pytest.approx(4), 5, 5, 0.5)
    beside = 1 - (38 / 40) * (37 / 40)
    assert found.outside == pytest.approx(beside * 0.8)
    frame = found.to_frame()
    assert list(frame["name"]) == ["0", "2"] and list(frame["input_size"]) == ["40x40", "20x20"]
    assert list(frame["maximum"]) == [5, 0] and list(frame["never_moved"]) == [False, True]
    lines = str(found).splitlines()
    assert lines[0].split() == ["layer", "kind", "input", "mean", "px", "p99", "px", "max", "px", "outside"]
    assert lines[1].split() == ["0", "shifted", "40x40", "5", "5", "5", f"{beside:.1%}"]
    assert lines[2].split() == ["2", "shifted", "20x20", "0", "0", "0", "0.0%", "never", "moved"]


def test_a_share_of_the_rows_may_be_measured():
    """Every third row, where a third of the samples is enough."""
    layer, input = sampled("deformable", kernel_size=3, padding=1), torch.randn(2, 4, 9, 8)
    model = nn.Sequential(layer)
    found = health.health_during(model, lambda: model(input), 9 * 9 * 8 * 2 // 3).layers["0"]
    positions = layer.sample_positions(input)[..., ::3, :].detach()
    moved = (positions - mz.geometry.grid_offsets((3, 3)).to(positions)[..., None, None]).norm(dim=2)
    assert found.samples == moved.numel() and found.maximum == pytest.approx(float(moved.max()), rel=1e-5)
    assert found.mean == pytest.approx(float(moved.mean()), rel=1e-5)


def numpys(moved: np.ndarray) -> dict[str, float]:
    figures = {"mean": moved.mean(), "p99": np.percentile(moved, 99), "maximum": moved.max()}
    return {name: pytest.approx(float(value), rel=1e-4, abs=1e-5) for name, value in figures.items()}


@pytest.mark.parametrize("options", [{}, {"offset_scale": 2.0, "remove_center": True}], ids=["plain", "scaled"])
@pytest.mark.parametrize("module", [mz.nn.DCNv3, mz.nn.DCNv4])
def test_modules_of_deformable_networks_have_figures(module, options):
    """Offsets of (3, 4) pixels at every point, times the scale."""
    layer, scale = module(8, group=2, **options), options.get("offset_scale", 1.0)
    model, input = nn.Sequential(layer), torch.randn(2, 10, 12, 8)
    found = mz.nn.sampling_health(model, input).layers["0"]
    assert (found.kind, found.input_size, found.maximum, found.never_moved) == (module.__name__, (10, 12), 0, True)
    assert found.samples == 2 * 10 * 12 * 2 * layer.points.count and found.is_stuck
    bias = next(p for p in mz.parameter_groups(model, 1.0)[1]["params"] if p.dim() == 1)
    shift = torch.tensor([3.0, 4.0]).repeat(layer.points.count)
    bias.data = shift.repeat(2) if module is mz.nn.DCNv3 else of_v4(shift, layer.points.count, len(bias))
    found = mz.nn.sampling_health(model, input).layers["0"]
    assert figures(found) | {"outside": 0} == {"mean": 5 * scale, "p99": 5 * scale, "maximum": 5 * scale, "outside": 0}
    assert not found.never_moved
    # Point by point: a pixel's column and row, a cell's, and the shift.
    cells = [(c, r) for c in (-1, 0, 1) for r in (-1, 0, 1) if (c, r) != (0, 0) or not layer.points.remove_center]
    x, y = (np.add.outer(np.arange(n), [scale * (cell[i] + 3 + i) for cell in cells]) for i, n in ((0, 12), (1, 10)))
    within = ((x >= -1) & (x <= 12))[None] & ((y >= -1) & (y <= 10))[:, None]
    assert found.outside == pytest.approx(1 - within.mean())


def of_v4(shift: torch.Tensor, points: int, channels: int) -> torch.Tensor:
    """Offsets, then factors, group after group; the rest is not read."""
    group = torch.cat((shift, torch.zeros(points)))
    return nn.functional.pad(group.repeat(2), (0, channels - 6 * points))


def test_adopted_layers_have_figures():
    """As numpy has them of the offsets that the packs' own convolution predicts."""
    model, input = mz.adopt(deformable.enliven(deformable.packs())), torch.randn(2, 6, 15, 15)
    found = mz.nn.sampling_health(model, input).layers
    assert [layer.kind for layer in found.values()] == ["DeformConv2dPack", "ModulatedDeformConv2dPack"]
    offset = model[0].conv_offset(input).detach().double().unflatten(1, (-1, 2)).numpy()
    assert {name: getattr(found["0"], name) for name in ("mean", "p99", "maximum")} == numpys(
        np.hypot(*offset.swapaxes(0, 2).swapaxes(1, 2))
    )
    assert not found["0"].never_moved and found["0"].learns
    for name in found:
        nn.init.zeros_(model[int(name)].conv_offset.weight)
        nn.init.zeros_(model[int(name)].conv_offset.bias)
    found = mz.nn.sampling_health(model, input)
    assert found.never_moved == 1 and found.maximum == 0


def test_layers_that_are_given_their_offsets_have_nothing_to_learn():
    """As many samples beside the image as torchvision's own offsets, added to the grid, come to."""
    model, input = mz.adopt(deformable.enliven(deformable.Beside(4, 8, stride=2, fields=2))), torch.randn(2, 4, 12, 10)
    found = mz.nn.sampling_health(model, input).layers["deform"]
    assert found.kind == "DeformConv2d" and found.never_moved is None and not found.learns
    y, x = model.offset(input).detach().double().unflatten(1, (2, 9, 2)).unbind(3)
    moved = torch.hypot(x, y).numpy()
    assert {name: getattr(found, name) for name in ("mean", "p99", "maximum")} == numpys(moved)
    row, column = torch.arange(9).div(3, rounding_mode="floor") * 2.0 - 2, torch.arange(9) % 3 * 2.0 - 2
    y = y + row[:, None, None] + 2 * torch.arange(y.shape[3])[:, None]
    x = x + column[:, None, None] + 2 * torch.arange(x.shape[4])
    within = (x >= -1) & (x <= 10) & (y >= -1) & (y <= 12)
    assert found.outside == pytest.approx(1 - float(within.double().mean())) and found.outside > 0


def test_calls_do_not_tell_where_they_read():
    model = mz.adopt(deformable.Aspp())
    with pytest.raises(
        mz.MetricZooError, match="Aspp has no sampled layer: convert it first, or adopt .* does not tell"
    ):
        mz.nn.sampling_health(model, torch.randn(1, 6, 13, 13))
