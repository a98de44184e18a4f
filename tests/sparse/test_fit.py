"""Fits approach their targets; what they keep exactly, they keep."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from metric_zoo import MetricZooError
from metric_zoo.sparse import INITS, SparseKernelComplex, targets
from metric_zoo.sparse.fit import centroids
from metric_zoo.sparse.initialize import half_extent, initial_offsets, radial
from metric_zoo.sparse.loss import loss_for


def missed(one: SparseKernelComplex, target: torch.Tensor) -> float:
    """Relative error of the kernel, on a window that holds both."""
    size = max(2 * one.reach + 1, target.shape[-1])
    dense = torch.nn.functional.pad(target, ((size - target.shape[-1]) // 2,) * 4)
    return ((one.kernel(size) - dense).norm() / dense.norm()).item()


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("name", ["gaussian-5", "disk", "star"])
def test_a_fit_comes_near(init, name):
    target = targets.get_target(name)
    before = SparseKernelComplex.fit(target, 12, 3, init, steps=1)
    after = SparseKernelComplex.fit(target, 12, 3, init, steps=300)
    assert missed(after, target) < 0.8 * missed(before, target)


@pytest.mark.parametrize(("name", "published"), [("disk", 49), ("star", 56), ("coma", 47)])
def test_a_filtered_picture_is_that_of_the_dense_kernel(name, published):
    """At least what was published at 24x4, in dB; scipy filters densely."""
    from skimage import data

    target = targets.get_target(name)
    one = SparseKernelComplex.fit(target)
    picture = torch.from_numpy(data.camera()).float()[None, None] / 255
    dense = scipy.ndimage.correlate(picture[0, 0].double().numpy(), target.double().numpy(), mode="nearest")
    error = (one.apply(picture)[0, 0].double() - torch.from_numpy(dense)).square().mean()
    assert -10 * error.log10() > published
    assert one.reads == 96


def test_the_natural_loss_is_that_of_its_spectrum():
    """Against numpy's full transform; what is missing in low frequencies costs more."""
    missed = torch.randn(2, 15, 15, dtype=torch.float64)
    frequency = np.fft.fftfreq(15)
    power = 0.1 / (frequency[:, None] ** 2 + frequency**2 + 0.01**2)
    spectrum = np.abs(np.fft.fft2(missed.numpy())) ** 2 / 15**2
    expected = np.sqrt(missed.numpy() ** 2 + 0.1**2).sum() + (power * spectrum).sum()
    assert loss_for(None, signed=False).of(missed).item() == pytest.approx(expected, rel=1e-12)
    assert loss_for(None, signed=True).of(missed).item() == pytest.approx(
        np.sqrt(missed.numpy() ** 2 + 0.01).sum(), rel=1e-12
    )


def test_the_natural_loss_serves_pictures():
    """Filtered by scipy, a photograph loses less than with the published loss."""
    from skimage import data

    picture, error = data.camera() / 255.0, {}
    for loss in ("natural", "charbonnier"):
        kernel = SparseKernelComplex.fit(targets.star(31), 12, 4, steps=400, loss=loss).kernel(63).double().numpy()
        difference = kernel - np.pad(targets.star(31).double().numpy(), 16)
        error[loss] = np.square(scipy.ndimage.convolve(picture, difference, mode="nearest")).mean()
    assert error["natural"] < 0.5 * error["charbonnier"]


def test_sum_and_centroid_are_exact():
    target = 3 * targets.star(21).roll((2, -3), (0, 1))
    one = SparseKernelComplex.fit(target, 8, 3, steps=20)
    kernel = one.kernel().double()
    torch.testing.assert_close(kernel.sum(), target.double().sum(), rtol=1e-5, atol=0)
    found, wanted = (centroids((k / k.sum())[None])[0] for k in (kernel, target.double()))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_what_is_fitted_beside_a_target_does_not_matter():
    some = torch.stack([targets.disk(21), targets.star(21), targets.gaussian(2.0, 21)])
    together = SparseKernelComplex.fit(some, 8, 2, steps=30)
    for index, target in enumerate(some):
        alone = SparseKernelComplex.fit(target, 8, 2, steps=30)
        torch.testing.assert_close(together[index].kernel(31), alone.kernel(31), atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_fit():
    first, again, other = (SparseKernelComplex.fit(targets.heart(21), 8, 2, steps=10, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.offsets, again.offsets) and torch.equal(first.weights, again.weights)
    assert not torch.equal(first.offsets, other.offsets)


def test_begins_with_another_complex():
    near, target = targets.disk(21, 8.0), targets.disk(21, 8.5)
    start = SparseKernelComplex.fit(near, 8, 2, steps=200)
    warm = SparseKernelComplex.fit(target, init=start, steps=50)
    assert (warm.offsets - start.offsets).abs().max() < 2 and warm.weights.shape == start.weights.shape
    with pytest.raises(MetricZooError, match="init holds 1 complexes for 2 targets"):
        SparseKernelComplex.fit(
            torch.stack([target, near]), init=SparseKernelComplex(start.offsets[None], start.weights[None])
        )


def test_signed_kernels():
    """A difference of Gaussians: its sum is nothing, and nothing is divided by it."""
    target = targets.gaussian(2.0, 17) - targets.gaussian(3.0, 17)
    one = SparseKernelComplex.fit(target, 12, 2, signed=True, steps=600)
    assert missed(one, target) < 0.35


def test_weights_of_layers_that_are_trained_or_not():
    """A parameter, under inference mode, under autocast: the same fit."""
    target = targets.disk(11)
    expected = SparseKernelComplex.fit(target, 6, 2, steps=5)
    parameter = torch.nn.Parameter(target.clone())
    with torch.inference_mode():
        quiet = SparseKernelComplex.fit(target.clone(), 6, 2, steps=5)
    with torch.autocast("cpu", torch.bfloat16):
        half = SparseKernelComplex.fit(target, 6, 2, steps=5)
        kernel = half.kernel()
    for fit in (SparseKernelComplex.fit(parameter, 6, 2, steps=5), quiet, half):
        assert torch.equal(fit.offsets, expected.offsets) and not fit.offsets.requires_grad
    assert torch.equal(kernel, expected.kernel())


def test_a_kernel_far_from_the_middle():
    """Nothing wraps around the canvas: what is fitted is what is read."""
    target = torch.zeros(31, 31)
    target[1:4, 1:4] = 1 / 9
    for init in ("sparse", "radial"):
        one = SparseKernelComplex.fit(target, 8, 3, init, steps=300)
        found = centroids((one.kernel(61) / one.kernel(61).sum())[None])[0]
        torch.testing.assert_close(found, torch.tensor([-13.0, -13.0]), atol=0.01, rtol=0)
    assert missed(SparseKernelComplex.fit(target, 8, 3, steps=300), target) < 0.1


def test_one_pixel():
    one = SparseKernelComplex.fit(torch.ones(1, 1), 3, 2, steps=300)
    assert missed(one, torch.ones(1, 1)) < 0.1


def test_increasing_circles_reach_as_far_as_the_target():
    """r_l = l dr, dr = 2R / (L (L + 1))."""
    offsets = radial(12, 4, 20.0)
    torch.testing.assert_close(offsets.norm(dim=-1).amax(1), torch.tensor([2.0, 4.0, 6.0, 8.0]))


def test_scattered_points_lie_in_the_shape_and_apart():
    target = targets.ring()
    offsets = initial_offsets("sparse", target, 24, 4, seed=0)
    spacing = (torch.count_nonzero(target > 0.01 * target.max()) / (24 * torch.pi)).sqrt()
    share = spacing / half_extent(target)
    first = offsets[0] / (1 - share)
    inside = target[(first[:, 1] + 24).round().long(), (first[:, 0] + 24).round().long()]
    assert (inside > 0).all()
    assert torch.pdist(first).min() > 0.7 * spacing
    assert offsets.norm(dim=-1).amax(1).sum() <= half_extent(target) * 2**0.5 + 1


def test_fewer_pixels_than_samples():
    target = torch.zeros(9, 9)
    target[4, 4] = 1
    one = SparseKernelComplex.fit(target, 12, 3, steps=200)
    assert missed(one, target) < 0.2


BAD = {
    "empty": (torch.zeros(9, 9), {}, "empty"),
    "negative": (-targets.disk(9), {}, "negative value, -0"),
    "not square": (torch.ones(9, 7), {}, r"9, 7\)"),
    "even": (torch.ones(8, 8), {}, "8 pixels a side"),
    "a vector": (torch.ones(9), {}, "square kernel"),
    "four dimensions": (torch.ones(1, 1, 9, 9), {}, "square kernel"),
    "not finite": (torch.full((9, 9), torch.nan), {}, "81 values that are not finite"),
    "whole numbers": (torch.ones(9, 9).int(), {}, "int32"),
    "too few samples": (targets.disk(9), {"samples": 2}, "samples=2"),
    "no layers": (targets.disk(9), {"layers": 0}, "layers=0"),
    "no steps": (targets.disk(9), {"steps": 0}, "steps=0"),
    "loss": (targets.disk(9), {"loss": "natrual"}, "did you mean 'natural'"),
    "no loss": (targets.disk(9), {"loss": ""}, "unknown loss ''"),
    "none at all": (torch.ones(0, 9, 9), {}, r"\(0, 9, 9\)"),
    "init": (targets.disk(9), {"init": "sparce"}, "did you mean 'sparse'"),
}


def test_a_signed_fit_goes_on_where_it_ended():
    target = targets.gaussian(3.0, 21) - targets.gaussian(6.0, 21)
    first = SparseKernelComplex.fit(target, 12, 3, steps=300, signed=True)
    further = SparseKernelComplex.fit(target, init=first, steps=1, signed=True)
    assert missed(further, target) < 1.1 * missed(first, target)


def test_one_complex_begins_for_several_targets():
    some = torch.stack([targets.disk(21, radius) for radius in (7.0, 8.0, 9.0)])
    start = SparseKernelComplex.fit(some[1], 8, 3, steps=50)
    found = SparseKernelComplex.fit(some, init=start, steps=50)
    for index, target in enumerate(some):
        alone = SparseKernelComplex.fit(target, init=start, steps=50)
        torch.testing.assert_close(found[index].kernel(41), alone.kernel(41), atol=1e-4, rtol=0)


def test_every_pixel_is_taken_before_one_is_again():
    """All are taken, and no two samples lie at one place."""
    target = torch.zeros(9, 9)
    target[3, 2:6] = 1.0
    points = initial_offsets("sparse", target, 10, 1, 0)[0]
    assert {tuple(p) for p in points[:4].int().tolist()} == {(x - 4, -1) for x in range(2, 6)}
    assert torch.pdist(points).min() > 0 and (points[4:] - points[:4].repeat(2, 1)[:6]).abs().max() <= 0.5


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    target, options, message = BAD[case]
    with pytest.raises(MetricZooError, match=message):
        SparseKernelComplex.fit(target, **options)
