"""Figures of a record against closed forms and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from metric_zoo.benchmarks.measure import activation_memory_mib
from metric_zoo.benchmarks.tasks.classification import Evaluation, calibration_error, unpack_hits
from metric_zoo.benchmarks.tasks.corruptions import BLUR, CORRUPTIONS, NOISE, Corrupted


def test_calibration_error_is_the_formula():
    """Bins of confidence by numpy; a network that is right as often as it says has none."""
    draw = np.random.default_rng(0)
    confidence, correct = draw.uniform(0.1, 1, 1000), draw.integers(0, 2, 1000)
    bins = np.digitize(confidence, np.linspace(0, 1, 16), right=True) - 1
    expected = sum(
        abs(correct[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins)
    )
    assert calibration_error(torch.tensor(confidence), torch.tensor(correct)) == pytest.approx(expected, rel=1e-9)
    assert calibration_error(torch.tensor([0.75] * 4), torch.tensor([1, 1, 1, 0])) == pytest.approx(0, abs=1e-7)
    assert calibration_error(torch.ones(3), torch.zeros(3)) == 1


@pytest.mark.parametrize("size", [1, 8, 13])
def test_hits_survive_packing(size):
    hits = np.random.default_rng(size).integers(0, 2, size).astype(bool)
    packed = Evaluation(None, hits).packed_hits()
    assert (unpack_hits(packed, size) == hits).all()
    with pytest.raises(ValueError, match="do not hold one bit"):
        unpack_hits(packed, size + 8)


def test_activations_are_what_the_backward_pass_needs():
    """A linear layer keeps its input, a ReLU its output; the loss keeps the log-probabilities: sizes known by hand."""
    model = nn.Sequential(nn.Linear(1 << 10, 1 << 10), nn.ReLU(), nn.Linear(1 << 10, 2))
    images, labels = torch.randn(256, 1 << 10), torch.zeros(256, dtype=torch.int64)
    found = activation_memory_mib(model, images, labels)
    assert 2.0 <= found <= 2.02  # 1 MiB of input, 1 MiB of ReLU's output


def test_corruptions():
    """Against scipy; each leaves the shape, and noise is repeatable and every image's own."""
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    data = torch.utils.data.TensorDataset(images, torch.zeros(2))
    changed = {name: torch.stack([Corrupted(data, name)[i][0] for i in range(2)]) for name in CORRUPTIONS}
    assert all(result.shape == images.shape and not torch.equal(result, images) for result in changed.values())
    added = changed["noise"] - images
    assert torch.equal(Corrupted(data, "noise")[1][0], changed["noise"][1]) and not torch.equal(added[0], added[1])
    assert (changed["noise"] - images).std().item() == pytest.approx(NOISE, rel=0.05)
    inside = (..., slice(6, -6), slice(6, -6))
    blurred = ndimage.gaussian_filter(images.numpy(), (0, 0, BLUR, BLUR), truncate=3.0)
    np.testing.assert_allclose(changed["blur"].numpy()[inside], blurred[inside], rtol=1e-6)
    # torchvision turns counterclockwise by negative angles; scipy's planes are (rows, columns).
    turned = ndimage.rotate(images.numpy(), -20, axes=(2, 3), reshape=False, order=1)
    centre = (..., slice(10, -10), slice(10, -10))
    np.testing.assert_allclose(changed["rotation"].numpy()[centre], turned[centre], atol=1e-6)
    zoomed = changed["scale"].numpy()
    middle = (images.shape[-1] - 1) / 2
    rows, columns = (np.mgrid[0:32, 0:32] - middle) / 0.75 + middle
    expected = ndimage.map_coordinates(images[0, 0].numpy(), [rows, columns], order=1)
    np.testing.assert_allclose(zoomed[0, 0][10:-10, 10:-10], expected[10:-10, 10:-10], atol=1e-6)
