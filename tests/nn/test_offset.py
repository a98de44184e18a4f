"""Offsets within bounds: the closed form, finite differences, and what was saved before there were any."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import metric_zoo as mz
from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.nn.offset import DeformConfig
from tests.kinds import SAMPLED, disturb, options_of

BOUNDED = tuple(kind for kind in SAMPLED if "max_offset" in options_of(kind))


def moved(layer: mz.nn.SampledConv2d, predicted: float, dtype=torch.float32) -> np.ndarray:
    """How far each component of every sample lies from the grid where the head predicts the same everywhere."""
    torch.nn.init.constant_(layer.sampler.bias, predicted)
    positions = layer.to(dtype).sample_positions(torch.zeros(1, 4, 6, 7, dtype=dtype))
    return (positions - grid_offsets(layer.kernel_size)[..., None, None]).detach().numpy()


@pytest.mark.parametrize("bound", [0.5, 3, 40.0])
@pytest.mark.parametrize("kind", BOUNDED)
def test_offsets_are_bounded_by_a_tanh(kind, bound):
    layer = SAMPLED[kind](4, 8, 3, padding=1, max_offset=bound)
    for predicted in (-1e30, -4.0, 0.25, 1e4):
        np.testing.assert_allclose(moved(layer, predicted), bound * np.tanh(predicted / bound), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", BOUNDED)
def test_no_bound_is_the_published_form(kind):
    np.testing.assert_allclose(moved(SAMPLED[kind](4, 8, 3), 1e4), 1e4, rtol=1e-6)


@pytest.mark.parametrize("kind", BOUNDED)
def test_half_types_keep_the_bound(kind):
    """0.3 is no number of bfloat16, whose nearest lies above it."""
    layer = SAMPLED[kind](4, 8, 3, max_offset=0.3)
    assert moved(layer, 100.0, torch.bfloat16).max() <= 0.3 + 1e-6


@pytest.mark.parametrize("kind", BOUNDED)
def test_a_bounded_layer_starts_as_the_convolution_and_as_ready_to_learn(kind):
    """The oracles are the framework's convolution, and the rule without a bound: the slope at 0 is 1."""
    bounded, free = (SAMPLED[kind](4, 8, 3, padding=1, max_offset=bound) for bound in (2.0, None))
    free.load_state_dict(bounded.state_dict())
    x = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(bounded(x), F.conv2d(x, bounded.weight, bounded.bias, padding=1), rtol=1e-5, atol=1e-5)
    assert bounded.is_identity()
    for layer in (bounded, free):
        layer(x).square().sum().backward()
    assert free.sampler.weight.grad.any()
    torch.testing.assert_close(bounded.sampler.weight.grad, free.sampler.weight.grad)


@pytest.mark.parametrize("kind", BOUNDED)
def test_gradients_of_bounded_offsets(kind):
    """Finite differences, with offsets near the bound."""
    layer = disturb(SAMPLED[kind](2, 2, 3, padding=1, dtype=torch.float64, max_offset=1.5), 0.5)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x, *layer.parameters()))


@pytest.mark.parametrize("kind", BOUNDED)
def test_the_bound_is_converted_to_and_saved(kind, tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 3, padding=1))
    x = torch.randn(1, 3, 8, 8)
    converted = mz.convert(model, kind, example_input=x, where=["0", "1"], max_offset=2.5)
    assert [layer.config.max_offset for layer in converted] == [2.5, 2.5]
    assert "max_offset=2.5" in repr(converted) and "max_offset" not in repr(SAMPLED[kind](4, 8, 3))
    assert mz.conversion_report(converted).converted["1"].options["max_offset"] == 2.5
    mz.save(converted, tmp_path)
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 3, padding=1))
    assert mz.load(tmp_path, model=plain)[1].config == converted[1].config


def test_options_that_were_pickled_before_there_were_bounds():
    """The bytes are what the version before wrote of ``DeformConfig(2, None, "auto")``."""
    before = (
        b"ccopy_reg\n_reconstructor\np0\n(cmetric_zoo.nn.offset\nDeformConfig\np1\nc__builtin__\nobject\np2\nNtp3\n"
        b"Rp4\n(dp5\nVoffset_groups\np6\nI2\nsVhead_kernel_size\np7\nNsVhead\np8\nVauto\np9\nsb."
    )
    config = pickle.loads(before)
    assert config == DeformConfig(2, None, "auto") and config.max_offset is None
    assert config.to_dict() == DeformConfig(2, None, "auto").to_dict()
