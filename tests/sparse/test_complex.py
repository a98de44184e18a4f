"""A complex equals a dense convolution with its kernel; scipy and conv2d are the oracles."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
import torch.nn.functional as F

from metric_zoo import MetricZooError, ops
from metric_zoo.ops.backends.native import library
from metric_zoo.sparse import PADDING_MODES, SparseKernelComplex

BACKENDS = [
    pytest.param("native", marks=pytest.mark.skipif(not library.is_available(), reason="not compiled")),
    "torch",
]
MODES = {"zeros": "constant", "replicate": "nearest", "reflect": "mirror", "circular": "wrap"}


def random_complex(*batch: int, layers: int = 3, samples: int = 6, reach: float = 4.0) -> SparseKernelComplex:
    offsets = (torch.rand(*batch, layers, samples, 2, dtype=torch.float64) * 2 - 1) * reach
    return SparseKernelComplex(offsets, torch.randn(*batch, layers, samples, dtype=torch.float64))


def test_kernel_by_hand():
    """One sample between four pixels, one on a pixel."""
    one = SparseKernelComplex(torch.tensor([[[0.25, -0.5], [1.0, 0.0]]]), torch.tensor([[2.0, 3.0]]))
    expected = torch.tensor([[0, 0.75, 0.25], [0, 0.75, 3.25], [0, 0, 0]])
    torch.testing.assert_close(one.kernel(), expected)
    assert (one.layers, one.samples, one.reads, one.reach) == (1, 2, 2, 1)
    torch.testing.assert_close(one.kernel(1), expected[1:2, 1:2])
    assert one.kernel(7).shape == (7, 7) and one.kernel(7).sum() == one.kernel().sum()


def test_kernel_of_layers_is_their_convolution():
    many = random_complex(layers=3)
    alone = [SparseKernelComplex(many.offsets[i : i + 1], many.weights[i : i + 1]).kernel(13) for i in range(3)]
    expected = scipy.signal.convolve(scipy.signal.convolve(alone[0], alone[1]), alone[2])
    np.testing.assert_allclose(many.kernel(expected.shape[0]).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_apply_is_a_dense_correlation(padding_mode, backend):
    many, image = random_complex(), torch.randn(2, 3, 40, 37, dtype=torch.float64)
    with ops.use_backend(backend):
        found = many.apply(image, padding_mode)
    kernel = many.kernel().numpy()[None, None]
    expected = scipy.ndimage.correlate(image.numpy(), kernel, mode=MODES[padding_mode])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-10)


def test_one_for_each_channel():
    many, image = random_complex(4, samples=5), torch.randn(2, 4, 30, 31, dtype=torch.float64)
    reach = many.reach
    expected = F.conv2d(image, many.kernel()[:, None], padding=reach, groups=4)
    torch.testing.assert_close(many.apply(image, "zeros"), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(many[2].apply(image[:, 2:3], "zeros"), expected[:, 2:3], atol=1e-10, rtol=0)


@pytest.mark.parametrize("samples", [5, 6])
def test_gradients_against_finite_differences(samples):
    many, image = random_complex(layers=2, samples=samples, reach=1.8), torch.randn(1, 2, 9, 10, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (image, many.offsets, many.weights)]

    def filtered(image, offsets, weights):
        return SparseKernelComplex(offsets, weights).apply(image)

    assert torch.autograd.gradcheck(filtered, leaves)
    assert torch.autograd.gradcheck(lambda o, w: SparseKernelComplex(o, w).kernel(), leaves[1:])


def test_save_and_load(tmp_path):
    many = random_complex(2).to(torch.float32)
    many.save(tmp_path / "complex.safetensors")
    again = SparseKernelComplex.load(tmp_path / "complex.safetensors")
    assert torch.equal(again.offsets, many.offsets) and torch.equal(again.weights, many.weights)
    with pytest.raises(MetricZooError, match=r"nothing.safetensors cannot be read"):
        SparseKernelComplex.load(tmp_path / "nothing.safetensors")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(MetricZooError, match="cannot be read"):
        SparseKernelComplex.load(tmp_path / "text")
    with pytest.raises(MetricZooError, match="cannot be written"):
        many.save(tmp_path / "no such folder" / "complex.safetensors")


BAD = {
    "shapes": (lambda: SparseKernelComplex(torch.zeros(2, 3, 2), torch.zeros(2, 4)), r"\(2, 3, 2\).*\(2, 4\)"),
    "one layer too few dimensions": (lambda: SparseKernelComplex(torch.zeros(3, 2), torch.zeros(3)), "expected"),
    "no samples": (lambda: SparseKernelComplex(torch.zeros(2, 0, 2), torch.zeros(2, 0)), "expected"),
    "dtypes": (lambda: SparseKernelComplex(torch.zeros(2, 3, 2), torch.zeros(2, 3).double()), "float64"),
    "whole numbers": (lambda: SparseKernelComplex(torch.zeros(2, 3, 2).int(), torch.zeros(2, 3).int()), "int32"),
    "half": (lambda: SparseKernelComplex(torch.zeros(2, 3, 2).half(), torch.zeros(2, 3).half()), "float32 or float64"),
    "a vector": (lambda: random_complex(4).apply(torch.zeros(9)), r"\(9,\)"),
    "not finite": (lambda: SparseKernelComplex(torch.full((2, 3, 2), torch.inf), torch.zeros(2, 3)), "offsets hold 12"),
    "larger than the image": (lambda: random_complex().apply(torch.zeros(1, 1, 12, 99).double()), r"image of 12 x 99"),
    "channels": (lambda: random_complex(4).apply(torch.zeros(1, 3, 50, 50)), "4,.*complexes for 3 channels"),
    "padding": (lambda: random_complex().apply(torch.zeros(1, 1, 50, 50), "zero"), "unknown padding_mode 'zero'"),
    "image": (lambda: random_complex().apply(torch.zeros(50, 50)), r"\(50, 50\)"),
    "even size": (lambda: random_complex().kernel(4), "size=4"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, message = BAD[case]
    with pytest.raises(MetricZooError, match=message):
        call()


def test_zeros_need_no_room():
    many, image = random_complex(), torch.randn(1, 1, 6, 5, dtype=torch.float64)
    expected = F.conv2d(image, many.kernel()[None, None], padding=many.reach)
    torch.testing.assert_close(many.apply(image, "zeros"), expected, atol=1e-10, rtol=0)
