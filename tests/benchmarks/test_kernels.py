"""Kernel approximation: the peers are what they are called, the truth is scipy's, and the files hold every figure."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.ndimage
import torch
from typer.testing import CliRunner

from metric_zoo import MetricZooError
from metric_zoo.benchmarks.kernels import latency, quality, run
from metric_zoo.benchmarks.kernels.latency import dense_filters, time_varying
from metric_zoo.benchmarks.kernels.lowrank import LowRank
from metric_zoo.benchmarks.kernels.quality import compare, dense_filter, kernel_error
from metric_zoo.benchmarks.kernels.report import varying
from metric_zoo.benchmarks.kernels.run import bench_kernels
from metric_zoo.benchmarks.kernels.tempering import temper
from metric_zoo.benchmarks.kernels.varying import EFFECTS, Effect, truth
from metric_zoo.cli import app
from metric_zoo.sparse import FilterBank, targets
from metric_zoo.sparse.initialize import initial_offsets


def test_low_rank_is_the_nearest_there_is():
    """Eckart and Young: the error is the norm of the singular values that are left out."""
    target = targets.heart()
    values = np.linalg.svd(target.double().numpy(), compute_uv=False)
    for rank in (1, 2, 3):
        fit = LowRank.fit(target, rank)
        expected = np.linalg.norm(values[rank:]) / np.linalg.norm(values)
        assert kernel_error(fit.kernel(), target) == pytest.approx(expected, rel=1e-5)
        assert fit.reads == 2 * 49 * rank


def test_every_filter_is_the_same_dense_filter():
    image, kernel = torch.rand(1, 1, 60, 70), targets.gaussian(5)
    expected = scipy.ndimage.correlate(image[0, 0].numpy(), kernel.numpy(), mode="nearest")
    filters = dense_filters(image, kernel)
    assert len(filters) >= 2
    for name, filtered in filters.items():
        found = filtered()
        plain = found[0, 0].numpy() if isinstance(found, torch.Tensor) else found
        np.testing.assert_allclose(plain, expected, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(LowRank.fit(kernel, 1).apply(image)[0, 0].numpy(), expected, atol=2e-5)
    heart = targets.heart()
    expected = scipy.ndimage.correlate(image[0, 0].double().numpy(), heart.double().numpy(), mode="nearest")
    np.testing.assert_allclose(dense_filter(image[0, 0].double(), heart).numpy(), expected, atol=1e-12)


def test_tempering_goes_down():
    target = torch.stack([targets.disk(21), targets.star(21)])
    start = torch.stack([initial_offsets("sparse", one, 6, 2, 0) for one in target])
    found = [temper(target, 6, 2, iterations) for iterations in (1, 300)]
    for index in range(2):
        before, after = (kernel_error(fit[index].kernel(), target[index]) for fit in found)
        assert after < 0.9 * before
    assert found[1].offsets.shape == start.shape
    torch.testing.assert_close(found[1][0].kernel().sum(), torch.tensor(1.0), atol=1e-4, rtol=0)
    again = temper(target, 6, 2, 300)
    assert torch.equal(again.offsets, found[1].offsets)
    further = temper(target, 6, 2, 20, start=again)
    for index in range(2):
        assert searched_error(further[index], target[index]) <= searched_error(again[index], target[index]) + 1e-6


def searched_error(fit, target: torch.Tensor) -> float:
    """What tempering goes down in, by numpy: frequencies count as in natural images, beside white noise."""
    missed = fit.kernel(31).double().numpy() - np.pad(target.double().numpy(), 5)
    frequency = np.fft.fftfreq(31)
    power = 1 / (2 * 0.1) + 0.1 / (frequency[:, None] ** 2 + frequency**2 + 0.01**2)
    return float(np.sqrt((power * np.abs(np.fft.fft2(missed)) ** 2).sum()))


def test_figures_against_scikit_image():
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    clean = torch.rand(64, 64, dtype=torch.float64)
    other = (clean + 0.05 * torch.randn(64, 64).double()).clamp(0, 1)
    found = compare(other, clean)
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(clean.numpy(), other.numpy(), data_range=1))
    expected = structural_similarity(clean.numpy(), other.numpy(), data_range=1, gaussian_weights=True, sigma=1.5,
                                     use_sample_covariance=False)  # fmt: skip
    assert found["ssim"] == pytest.approx(expected, abs=2e-3)
    assert 0 < found["flip"] < 1 and compare(clean, clean)["flip"] == 0


@pytest.mark.parametrize("name", EFFECTS)
def test_truth_is_each_pixels_own_dense_filter(name):
    effect, picture = EFFECTS[name], torch.rand(61, 75, dtype=torch.float64)
    parameters = effect.map_of(61, 75)
    for values, allowed in zip(parameters, effect.grid, strict=True):
        assert values.amin() >= allowed[0] - 1e-9 and values.amax() <= allowed[-1] + 1e-9
    found = truth(picture, effect, parameters)
    padded = np.pad(picture.numpy(), 24, mode="edge")
    for row, column in ((0, 0), (30, 37), (60, 5), (12, 74)):
        kernel = effect.kernel_at(*parameters[:, row, column].tolist()).double().numpy()
        expected = (padded[row : row + 49, column : column + 49] * kernel).sum()
        assert found[row, column].item() == pytest.approx(expected, abs=1e-12)


def test_the_dense_peer_of_a_bank_computes_the_same(monkeypatch):
    """What is timed per pixel is the blend of dense kernels, by the same shares."""
    monkeypatch.setattr(latency, "SIZES", ((60, 64),))
    effect = Effect(lambda r: targets.disk(49, r), [[4.0, 12.0]], lambda h, w: torch.full((1, h, w), 8.0).double(), 6)
    bank = FilterBank.fit(effect.kernel_at, effect.grid, 6, 2, steps=2)
    image = torch.rand(1, 1, 60, 64)
    shares, kernels = bank.shares(effect.map_of(60, 64)[None].float())[0], latency.basis_kernels(effect, bank)
    filtered = latency._dense_per_pixel(image, shares, kernels)
    kernel = (effect.kernel_at(4.0) + effect.kernel_at(12.0)) / 2
    expected = scipy.ndimage.correlate(image[0, 0].numpy(), kernel.numpy(), mode="nearest")
    np.testing.assert_allclose(filtered().numpy(), expected[20:28].ravel(), atol=1e-5)
    blended = latency.blend_pictures(image[0, 0].numpy(), shares.numpy(), latency.dense_basis(kernels))
    np.testing.assert_allclose(blended, expected, atol=1e-5)
    whole = latency.blend_pictures(image[0, 0].numpy(), shares.numpy(), latency.low_rank_basis(kernels, 49))
    np.testing.assert_allclose(whole, expected, atol=1e-5)  # all ranks are the kernel itself
    timed = [row["method"] for row in time_varying(effect, bank, 3)]
    assert timed == ["6x2", latency.PER_PIXEL, latency.BLENDED, "low rank 1", "low rank 2", "low rank 3"]


def test_the_command_writes_both_files(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "SIZES", ((80, 96),))
    monkeypatch.setattr(quality, "PICTURES", ("chelsea",))
    monkeypatch.setattr(run, "TARGETS", {"star": None, "disk": None})
    monkeypatch.setattr(run, "EFFECTS", {"tilt-shift": EFFECTS["tilt-shift"]})
    options = ["--only", "t", "--steps", "3", "--tempering", "2", "--repeats", "3", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["kernels", "bench", *options], catch_exceptions=False)
    assert result.exit_code == 0 and (tmp_path / "kernels.md").read_text() in result.stdout
    report = json.loads((tmp_path / "kernels.json").read_text())
    assert {row["target"] for row in report["results"]} == {"star"}
    methods = {row["method"] for row in report["results"]}
    assert {"24x4", "12x4", "32x4", "8x6", "24x4, random", "low rank 3", "24x4, tempering"} < methods
    assert {row["method"] for row in report["latency"]} > {"24x4", "dense, direct (torch)", "dense, FFT (scipy)"}
    assert report["varying"][0]["effect"] == "tilt-shift" and set(report["varying"][0]["by_picture"]) == {"chelsea"}
    rows = {row.method: row for row in varying(report["varying"][0])}
    assert list(rows) == ["24x4", "low rank 1", "low rank 2", "low rank 3", "24x4, tempering", latency.PER_PIXEL,
                          latency.BLENDED]  # fmt: skip
    assert rows["low rank 1"].reads == 98 and rows["low rank 2"].published == 33.22
    assert rows["low rank 1"].psnr < rows["low rank 2"].psnr < rows[latency.BLENDED].psnr
    assert rows["24x4, tempering"].milliseconds is None and rows["24x4, tempering"].psnr > 0


def test_bad_input(tmp_path):
    with pytest.raises(MetricZooError, match="repeats=2"):
        bench_kernels(tmp_path, repeats=2)
    with pytest.raises(MetricZooError, match="no target or effect has 'zzz' in its name; known: .*tilt-shift"):
        bench_kernels(tmp_path, only="zzz")
    assert not any(tmp_path.iterdir())
