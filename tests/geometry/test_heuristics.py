"""Metrics from an image against scipy's Sobel filter and numpy's eigenvalues, on a real photograph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.datasets import load_sample_image

from metric_zoo import MetricZooError
from metric_zoo.geometry import metric_from_image, sobel_gradient


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    photograph = load_sample_image("flower.jpg")[100:140, 300:350] / 255.0
    return torch.from_numpy(photograph).permute(2, 0, 1)[None]


def test_sobel_is_scipys(image):
    gx, gy = sobel_gradient(image)
    for channel in range(3):
        plane = image[0, channel].numpy()
        np.testing.assert_allclose(gx[0, channel], ndimage.sobel(plane, axis=1, mode="nearest"), atol=1e-12)
        np.testing.assert_allclose(gy[0, channel], ndimage.sobel(plane, axis=0, mode="nearest"), atol=1e-12)


@pytest.mark.parametrize("axis", ["grad", "grad_orth"])
def test_eigenvalues_and_axis(image, axis):
    metric = metric_from_image(image, axis=axis, anisotropy=10.0, iota=1.0)
    grey = image.mean(1)[0].numpy()
    gx, gy = (ndimage.sobel(grey, axis=a, mode="nearest") for a in (1, 0))
    g = np.hypot(gx, gy)
    contrast = 1 + 10 * g / g.max()
    values, vectors = np.linalg.eigh(metric.matrix[0, 0].permute(2, 3, 0, 1).numpy())
    strong = g > 0.2 * g.max()  # where the formula's 1e-6 beside the gradient is small
    np.testing.assert_allclose(values[strong][:, 0], (1 / contrast)[strong], rtol=1e-4)
    np.testing.assert_allclose(values[strong][:, 1], contrast[strong], rtol=1e-4)
    along = np.abs(vectors[..., 0, 0] * gx + vectors[..., 1, 0] * gy)[strong] / g[strong]
    np.testing.assert_allclose(along, 1.0 if axis == "grad" else 0.0, atol=1e-3)


@pytest.mark.parametrize(
    ("drift", "sign", "turned"), [("grad", 1, False), ("-grad", -1, False), ("grad_orth", 1, True)]
)
def test_drift_has_the_length_and_direction_asked_for(image, drift, sign, turned):
    metric = metric_from_image(image, tau=0.9, drift=drift)
    gx, gy = sobel_gradient(image.mean(1, keepdim=True))
    edge = torch.hypot(gx, gy) > 0
    torch.testing.assert_close(metric.drift_norm(), 0.9 * edge.double())
    x, y = (-gy, gx) if turned else (gx, gy)
    cosine = (metric.drift[:, :, 0] * x + metric.drift[:, :, 1] * y) / (metric.drift.norm(dim=2) * torch.hypot(x, y))
    torch.testing.assert_close(cosine[edge], torch.full_like(cosine[edge], float(sign)))
    assert metric.is_feasible().all()


def test_a_flat_image_is_isotropic_without_drift():
    metric = metric_from_image(torch.full((1, 1, 6, 6), 0.5, dtype=torch.float64), iota=0.25, tau=0.9)
    expected = torch.tensor((0.25, 0, 0.25, 0, 0), dtype=torch.float64).view(1, 5, 1, 1).expand(1, 5, 6, 6)
    torch.testing.assert_close(metric.packed, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tau": 1.0}, "tau=1.0"), ({"iota": 0.0}, "iota=0.0"), ({"axis": "x"}, "axis 'x'"), ({"drift": "up"}, "'up'")],
)
def test_errors(options, message):
    with pytest.raises(MetricZooError, match=message):
        metric_from_image(torch.zeros(1, 1, 4, 4), **options)
