"""Figures of a record against closed forms and other libraries."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from metric_zoo.benchmarks.energy import gpu_joules
from metric_zoo.benchmarks.hits import pack_hits, unpack_hits
from metric_zoo.benchmarks.measure import Timed, activation_memory_mib, latency, throughput
from metric_zoo.benchmarks.memory_fit import largest_batch
from metric_zoo.benchmarks.tasks.classification.training import calibration_error
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
    packed = pack_hits(hits)
    assert (unpack_hits(packed, size) == hits).all()
    with pytest.raises(ValueError, match="do not hold one bit"):
        unpack_hits(packed, size + 8)


def test_activations_are_what_the_backward_pass_needs():
    """A linear layer keeps its input, a ReLU its output; the loss keeps the log-probabilities: sizes known by hand."""
    model = nn.Sequential(nn.Linear(1 << 10, 1 << 10), nn.ReLU(), nn.Linear(1 << 10, 2))
    found = activation_memory_mib(model, torch.randn(256, 1 << 10))
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


class _Meter:
    """NVML's counter, in millijoules: a thousand for every look."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.looks = 0

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if handle != "GPU-17":
            raise self.NVMLError("no such GPU")
        self.looks += 1
        return 1000 * self.looks


def test_energy_is_the_counter_of_that_gpu(monkeypatch):
    uuids = {0: "17", 1: "18"}
    monkeypatch.setitem(sys.modules, "pynvml", _Meter())
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=uuids[device.index]))
    assert [gpu_joules(torch.device("cuda", 0)) for _ in range(2)] == [1.0, 2.0]
    assert gpu_joules(torch.device("cuda", 1)) is None  # cannot be asked
    assert gpu_joules(torch.device("cpu")) is None
    timed = Timed(seconds=[0.1] * 4, joules=2.0)
    assert throughput(timed, 5, "float32", "contiguous", False).joules_per_image == pytest.approx(0.1)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_joules(torch.device("cuda", 0)) is None  # not installed


def _memory_for(images: int):
    """What torch does on a device that has memory for so many images."""

    def step(batch: int) -> None:
        if batch > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return step


@pytest.mark.parametrize(("room", "most", "found"), [(0, 64, None), (1, 64, 1), (37, 64, 32), (100, 64, 64)])
def test_largest_batch(room, most, found):
    assert largest_batch(_memory_for(room), most) == found


def test_only_a_lack_of_memory_means_that_it_does_not_fit():
    def wrong(_: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        largest_batch(wrong, 8)

    def too_many(batch: int) -> None:
        if batch > 4:
            raise RuntimeError("integer out of range")

    assert largest_batch(too_many, 64) == 4, "large batches meet other limits, too"


def test_throughput_is_that_of_the_times():
    """Quartiles by numpy."""
    seconds = [0.1, 0.4, 0.2, 0.5, 0.25]
    found = throughput(Timed(seconds, None), 10, "float32", "contiguous", False)
    expected = np.quantile(10 / np.array(seconds), [0.25, 0.5, 0.75])
    np.testing.assert_allclose([found.lower_quartile, found.median, found.upper_quartile], expected)
    milliseconds = np.quantile(1e3 * np.array(seconds), [0.5, 0.9, 0.99])
    shown = latency(Timed(seconds, None))
    np.testing.assert_allclose([shown.p50, shown.p90, shown.p99], milliseconds)
