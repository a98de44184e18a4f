"""Kernels to approximate are what their names say; scipy and closed forms are the oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from metric_zoo import DataError, MetricZooError
from metric_zoo.sparse import targets


@pytest.mark.parametrize("name", targets.TARGETS)
def test_every_target_is_a_kernel(name):
    kernel = targets.get_target(name)
    assert kernel.shape == (49, 49) and kernel.dtype == torch.float32
    assert kernel.amin() >= 0 and kernel.sum().item() == pytest.approx(1, abs=1e-5)
    assert torch.count_nonzero(kernel > 0.01 * kernel.max()) > 100


def test_gaussian_against_scipy():
    impulse = np.zeros((49, 49))
    impulse[24, 24] = 1
    expected = scipy.ndimage.gaussian_filter(impulse, 5, truncate=24 / 5)
    np.testing.assert_allclose(targets.gaussian(5).numpy(), expected / expected.sum(), atol=1e-7)


AREAS = {
    "disk": math.pi * 24**2,
    "ring": math.pi * 24**2 * (1 - 0.6**2),
    "square": 48.0**2,
    "hexagon": 1.5 * math.sqrt(3) * 24**2,
    "star": 4 * math.sin(math.pi / 4) * 0.4 * 24**2,
}


@pytest.mark.parametrize("name", AREAS)
def test_areas(name):
    """A silhouette's largest value is one over its area."""
    assert 1 / targets.get_target(name).max().item() == pytest.approx(AREAS[name], rel=0.01)


def test_symmetries():
    for name in ("disk", "ring", "square", "star", "spherical"):
        kernel = targets.get_target(name)
        torch.testing.assert_close(kernel, kernel.rot90(), atol=2e-6, rtol=0)
    for name in ("heart", "coma"):
        kernel = targets.get_target(name)
        torch.testing.assert_close(kernel, kernel.flip(1), atol=2e-6, rtol=0)
        assert (kernel - kernel.flip(0)).abs().max() > 0.3 * kernel.max()


def test_a_point_spread_without_aberration_is_an_airy_disk():
    """(2 J1(v) / v)^2; v = 2 pi r R / n for an aperture of radius R pixels on n."""
    from scipy.special import j1

    kernel = targets.coma(waves=0.0).double().numpy()
    places = np.arange(49) - 24
    radius = np.hypot(places[:, None], places)
    v = 2 * np.pi * radius * 33 / 200
    airy = np.where(radius > 0, (2 * j1(np.where(v > 0, v, 1)) / np.where(v > 0, v, 1)) ** 2, 1.0)
    np.testing.assert_allclose(kernel / kernel.max(), airy, atol=0.02)


def test_from_image(tmp_path):
    pixels = np.zeros((30, 60), dtype=np.uint8)
    pixels[10:20, 15:45] = 255
    Image.fromarray(pixels).save(tmp_path / "bar.png")
    kernel = targets.from_image(tmp_path / "bar.png", 31)
    assert kernel.shape == (31, 31) and kernel.sum().item() == pytest.approx(1, abs=1e-5)
    rows, columns = np.nonzero(kernel.numpy() > 0.5 * kernel.max().item())
    assert columns.max() - columns.min() > 2.5 * (rows.max() - rows.min())
    np.testing.assert_allclose([rows.mean(), columns.mean()], [15, 15], atol=1)


def test_bad_input(tmp_path):
    with pytest.raises(DataError, match="cannot be read as a picture"):
        targets.from_image(tmp_path / "nothing.png")
    for picture in (torch.zeros(5, 5), -torch.ones(5, 5), torch.full((5, 5), torch.nan), torch.ones(3, 5, 5)):
        with pytest.raises(MetricZooError, match="becomes no kernel"):
            targets.from_tensor(picture)
    nothing = (
        lambda: targets.disk(radius=0.01),
        lambda: targets.ring(inner=2.0),
        lambda: targets.coma(waves=math.nan),
    )
    for call in nothing:
        with pytest.raises(MetricZooError, match="nothing is left of it"):
            call()
    for sigma in (0.0, -5.0, math.nan):
        with pytest.raises(MetricZooError, match="sigma="):
            targets.gaussian(sigma)
    for radius in (0.0, -5.0, 40.0, math.nan):
        with pytest.raises(MetricZooError, match="radius="):
            targets.disk(49, radius)
    for size in (48, 0, -3, 2.5):
        for call in (targets.disk, targets.coma, targets.ampersand, lambda size: targets.gaussian(2.0, size)):
            with pytest.raises(MetricZooError, match=f"size={size}"):
                call(size)
    with pytest.raises(MetricZooError, match="becomes no kernel"):
        targets.from_tensor(torch.ones(0, 5))
    with pytest.raises(MetricZooError, match="did you mean 'disk'"):
        targets.get_target("dsk")
