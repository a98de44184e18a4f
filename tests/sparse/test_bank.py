"""A bank filters every pixel by its own kernel; dense filters, pixel by pixel, are the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from metric_zoo import MetricZooError, ops
from metric_zoo.ops.backends.native import library
from metric_zoo.sparse import FilterBank, SparseKernelComplex, targets

BACKENDS = [
    pytest.param("native", marks=pytest.mark.skipif(not library.is_available(), reason="not compiled")),
    "torch",
]


def random_bank(*grid: int, layers: int = 1, samples: int = 5) -> FilterBank:
    offsets = (torch.rand(*grid, layers, samples, 2, dtype=torch.float64) * 2 - 1) * 2.5
    basis = SparseKernelComplex(offsets, torch.rand(*grid, layers, samples, dtype=torch.float64))
    return FilterBank(basis, tuple(torch.linspace(-1, 1.5, size, dtype=torch.float64).exp() for size in grid))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("grid", [(2,), (5,), (3, 4)])
def test_one_layer_is_exact_at_every_pixel(grid, backend):
    """The dense kernel of each pixel's parameters, laid over the picture there."""
    bank = random_bank(*grid)
    image = torch.rand(1, 2, 17, 15, dtype=torch.float64)
    share = torch.rand(1, len(grid), 17, 15, dtype=torch.float64)
    low, high = (torch.stack([values[i] for values in bank.grid]).view(1, -1, 1, 1) for i in (0, -1))
    parameters = low + (high - low) * share
    with ops.use_backend(backend):
        found = bank.apply(image, parameters)
    reach = bank.basis.reach
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    for row, column in ((0, 0), (3, 14), (16, 7), (9, 9)):
        kernel = bank.at(*parameters[0, :, row, column].tolist()).kernel(2 * reach + 1).numpy()
        window = padded[0, :, row : row + 2 * reach + 1, column : column + 2 * reach + 1]
        np.testing.assert_allclose(found[0, :, row, column].numpy(), (window * kernel).sum((1, 2)), atol=1e-12)


@pytest.mark.parametrize("grid", [(4,), (3, 2)])
def test_parameters_that_do_not_change_give_one_filter(grid):
    bank = random_bank(*grid, layers=3)
    image = torch.rand(2, 1, 30, 28, dtype=torch.float64)
    value = [(values[0] + 0.3 * (values[-1] - values[0])).item() for values in bank.grid]
    parameters = torch.tensor(value, dtype=torch.float64).view(1, -1, 1, 1).expand(1, -1, 30, 28)
    kernel = bank.at(*value).kernel().numpy()
    expected = scipy.ndimage.correlate(image.numpy(), kernel[None, None], mode="nearest")
    np.testing.assert_allclose(bank.apply(image, parameters).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_against_finite_differences(backend):
    bank = random_bank(3, layers=2, samples=3)
    image = torch.rand(1, 1, 15, 14, dtype=torch.float64)
    parameters = bank.grid[0][0] + torch.rand(1, 1, 15, 14, dtype=torch.float64) * (bank.grid[0][-1] - bank.grid[0][0])
    leaves = [t.requires_grad_() for t in (image, parameters, bank.basis.offsets, bank.basis.weights)]

    def filtered(image, parameters, offsets, weights):
        return FilterBank(SparseKernelComplex(offsets, weights), bank.grid).apply(image, parameters)[..., 6:9, 6:9]

    with ops.use_backend(backend):
        assert torch.autograd.gradcheck(filtered, leaves)


def test_a_fitted_bank_blurs_by_depth():
    """A disk that grows from top to bottom; the oracle filters densely with the disk of each row."""
    from skimage import data

    radii = torch.linspace(1, 8, 128)
    grid = [1 * 8 ** (i / 5) for i in range(6)]
    bank = FilterBank.fit(lambda radius: targets.disk(19, radius), [grid], samples=16, layers=3, steps=400)
    picture = torch.from_numpy(data.camera()[100:228, 150:278]).double()[None, None] / 255
    depth = radii.double()[:, None].expand(1, 1, 128, 128)
    found = bank.apply(picture, depth, outside="clamp")[0, 0].numpy()
    padded = np.pad(picture[0, 0].numpy(), 9, mode="edge")
    expected = np.stack(
        [
            scipy.ndimage.correlate(padded[row : row + 19], targets.disk(19, radii[row].item()).double().numpy())[
                9, 9:-9
            ]
            for row in range(128)
        ]
    )
    assert -10 * np.log10(np.square(found - expected).mean()) > 39.27  # published for tilt-shift


def test_neighbours_correspond():
    """A sample moves less from one basis filter to the next than samples lie apart."""
    bank = FilterBank.fit(lambda r: targets.disk(19, r), [[4, 5, 6]], samples=12, layers=2, steps=200)
    moved = bank.basis.offsets.diff(dim=0).norm(dim=-1)
    assert moved.median() < 1.5


def test_parameters_of_lower_precision_than_their_use():
    """Half a parameter is all that is rounded; nothing rounds the grid."""
    bank, image = random_bank(5), torch.rand(1, 1, 14, 14)
    bank = FilterBank(bank.basis.to(torch.float32), bank.grid)
    parameters = torch.linspace(bank.grid[0][0].item(), bank.grid[0][-1].item(), 196).view(1, 1, 14, 14)
    rounded = parameters.to(torch.bfloat16)
    expected = bank.apply(image.to(torch.bfloat16).float(), rounded.float(), "clamp")
    found = bank.apply(image.to(torch.bfloat16), rounded, "clamp")
    torch.testing.assert_close(found.float(), expected, atol=0.01, rtol=0.01)
    with torch.autocast("cpu", torch.bfloat16), ops.use_backend("torch"):
        plain = bank.apply(image, parameters, "clamp")
    assert plain.dtype == torch.float32
    torch.testing.assert_close(plain, bank.apply(image, parameters, "clamp"), atol=1e-5, rtol=0)


def test_a_map_on_the_grid_has_a_gradient():
    bank, image = random_bank(4), torch.rand(1, 1, 14, 14, dtype=torch.float64)
    parameters = bank.grid[0][1].expand(1, 1, 14, 14).clone().requires_grad_()
    (slope,) = torch.autograd.grad(bank.apply(image, parameters).sum(), parameters)
    step = 1e-6
    numeric = (bank.apply(image, parameters + step) - bank.apply(image, parameters)).sum() / step
    assert slope.sum().item() == pytest.approx(numeric.item(), rel=1e-3) and slope.abs().max() > 0


def test_a_bad_grid_costs_no_fit():
    def never(*parameters):
        raise AssertionError("fitted")

    for grid in ([], [[]], [[1.0]], [[2.0, 1.0]], [[1.0, 1.0]], [[1.0, float("nan")]], [[0.0, 1.0]] * 3):
        with pytest.raises(MetricZooError, match="expected"):
            FilterBank.fit(never, grid)


def test_outside_of_the_grid():
    bank, image = random_bank(3), torch.rand(1, 1, 12, 12, dtype=torch.float64)
    low, high = bank.grid[0][0].item(), bank.grid[0][-1].item()
    parameters = torch.full((1, 1, 12, 12), high + 1, dtype=torch.float64)
    with pytest.raises(MetricZooError, match=f"parameter 0 goes from {high + 1:.4g} .* give outside='clamp'"):
        bank.apply(image, parameters)
    torch.testing.assert_close(bank.apply(image, parameters, "clamp"), bank.apply(image, parameters - 1))
    torch.testing.assert_close(bank.apply(image, -9 * parameters, "clamp"), bank.apply(image, 0 * parameters + low))


def test_save_and_load(tmp_path):
    for grid in ((3,), (2, 4)):
        bank = random_bank(*grid)
        bank.save(tmp_path / "bank.safetensors")
        again = FilterBank.load(tmp_path / "bank.safetensors")
        assert torch.equal(again.basis.offsets, bank.basis.offsets) and len(again.grid) == len(grid)
        assert all(torch.equal(a, b) for a, b in zip(again.grid, bank.grid, strict=True))
    shared = torch.tensor([0.0, 1.0])
    FilterBank(random_bank(2, 2).basis, (shared, shared)).save(tmp_path / "shared.safetensors")
    assert torch.equal(FilterBank.load(tmp_path / "shared.safetensors").grid[1], shared)
    with pytest.raises(MetricZooError, match="holds .*'grid_0'.* expected"):
        SparseKernelComplex.load(tmp_path / "bank.safetensors")


IMAGE = torch.zeros(1, 1, 12, 12)
BAD = {
    "grid": (lambda: FilterBank(random_bank(3).basis, (torch.tensor([0.0, 1.0]),)), r"basis of \(3,\).*grid of \(2,\)"),
    "descending": (lambda: FilterBank(random_bank(2).basis, (torch.tensor([1.0, 0.0]),)), "ascending"),
    "one value": (lambda: FilterBank(random_bank(1).basis, (torch.tensor([1.0]),)), "two or more"),
    "size": (lambda: random_bank(3).apply(IMAGE, torch.zeros(1, 1, 9, 12), "clamp"), r"expected \(B or 1, D, H, W\)"),
    "number": (lambda: random_bank(3).apply(IMAGE, torch.zeros(1, 2, 12, 12)), "expected 1 for every pixel"),
    "not finite": (lambda: random_bank(3).apply(IMAGE, IMAGE + torch.nan), "144 values that are not finite"),
    "whole numbers": (lambda: random_bank(3).apply(IMAGE, IMAGE.long()), "int64"),
    "empty": (lambda: random_bank(3).apply(IMAGE[..., :0], IMAGE[..., :0]), "expected some"),
    "outside": (lambda: random_bank(3).apply(IMAGE, IMAGE, "clip"), "outside='clip'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, message = BAD[case]
    with pytest.raises(MetricZooError, match=message):
        call()


def test_a_bank_of_signed_kernels():
    bank = FilterBank.fit(
        lambda sigma: targets.gaussian(sigma, 15) - targets.gaussian(2 * sigma, 15), [[1.5, 2.0, 2.5]], 8, 2,
        steps=200, warm_steps=100, signed=True,
    )  # fmt: skip
    target = targets.gaussian(2.5, 15) - targets.gaussian(5.0, 15)
    found = bank.at(2.5).kernel(41)
    assert (found - torch.nn.functional.pad(target, (13,) * 4)).norm() < 0.35 * target.norm()


def test_to_another_precision():
    bank = random_bank(3)
    assert bank.to(torch.float32).basis.weights.dtype == torch.float32
    with pytest.raises(MetricZooError, match="2 parameters"):
        bank.at(0.0, 1.0)


def test_kernels_of_several_sizes_are_refused():
    with pytest.raises(MetricZooError, match="kernels of"):
        FilterBank.fit(lambda size: targets.disk(int(size)), [[7.0, 9.0]], 3, 1, steps=1)
    with pytest.raises(MetricZooError, match=r"kernels of \[\(7, 7\), \(9, 9\), \(11, 11\)\]"):
        FilterBank.fit(lambda size: torch.ones(int(size), int(size)), [[7, 9, 11]], 4, 2, steps=2)


def test_every_complex_grows_from_its_neighbour():
    """Offsets that count the steps from the middle, along the first axis and then along the second."""
    sizes = []

    def one_further(targets_: torch.Tensor, start: SparseKernelComplex | None) -> SparseKernelComplex:
        sizes.append(len(targets_))
        count = torch.zeros(1, 1, 3, 2) if start is None else start.offsets + 1
        return SparseKernelComplex(count, torch.ones(count.shape[:-1]))

    bank = FilterBank.grown(lambda a, b: torch.tensor([[float(a * 10 + b)]]), [[0, 1, 2], [0, 1, 2, 3]], one_further)
    assert sizes == [1, 4, 5, 2]  # the middle is (1, 2)
    expected = torch.tensor([[3, 2, 1, 2], [2, 1, 0, 1], [3, 2, 1, 2]])
    assert torch.equal(bank.basis.offsets[..., 0, 0, 0], expected.float())
