"""``metric-zoo filter`` and the pictures it reads and writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from metric_zoo.cli import app
from metric_zoo.errors import DataError
from metric_zoo.explain import compare_filters
from metric_zoo.explain.filtering import psnr
from metric_zoo.images import read_image, write_image

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.stack([LEVELS, LEVELS.T, 255 - LEVELS], -1)


@pytest.mark.parametrize(
    ("pixels", "mode", "expected"),
    [
        (LEVELS, "L", LEVELS / 255),
        (LEVELS.astype(np.uint16) * 257, "I;16", LEVELS / 255),
        (COLOUR, "RGB", COLOUR / 255),
        (np.dstack([COLOUR, LEVELS]), "RGBA", COLOUR / 255),
        (np.dstack([LEVELS, LEVELS]), "LA", LEVELS / 255),
    ],
    ids=["8 bits", "16 bits", "colour", "transparent colour", "transparent grey"],
)
def test_pictures_are_read_as_they_are(tmp_path, pixels, mode, expected):
    Image.fromarray(pixels).save(tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.mode == mode
    found = read_image(tmp_path / "p.png")
    expected = expected[..., None] if expected.ndim == 2 else expected
    torch.testing.assert_close(found[0].permute(1, 2, 0), torch.from_numpy(expected).float())
    write_image(found, tmp_path / "again.png")
    torch.testing.assert_close(read_image(tmp_path / "again.png"), found)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read as a picture"), (b"no picture", "cannot be read"), ("float", "floating-point pixels")],
    ids=["missing", "no picture", "float"],
)
def test_what_is_no_picture(tmp_path, content, message):
    path = tmp_path / "p.tiff"
    if content == "float":
        Image.fromarray(LEVELS.astype(np.float32)).save(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_image(path)
    with pytest.raises(DataError, match="no ending of a picture"):
        write_image(torch.zeros(1, 1, 4, 4), tmp_path / "p.abc")


def test_psnr_is_scikit_images():
    from skimage.metrics import peak_signal_noise_ratio

    one, other = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    expected = peak_signal_noise_ratio(other.numpy(), one.numpy(), data_range=1)
    assert psnr(one, other) == pytest.approx(expected, rel=1e-5)


def test_comparison_of_a_noisy_photograph(tmp_path):
    """Every filter takes noise away from a smooth photograph, and twelve pictures and one of all are there."""
    from skimage import data, transform

    photograph = transform.resize(data.camera(), (64, 64), anti_aliasing=True)
    write_image(torch.from_numpy(photograph)[None, None].float(), tmp_path / "camera.png")
    result = CliRunner().invoke(
        app,
        [
            "filter",
            str(tmp_path / "camera.png"),
            "--noise",
            "0.1",
            "--kernel-size",
            "5",
            "--out",
            str(tmp_path / "out"),
        ],
    )
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()[1:14]]
    noisy, found = float(rows[0][1]), [float(row[3]) for row in rows[1:]]
    assert rows[0][0] == "(none)" and len(found) == 12 and max(found) > noisy
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(names) == 13 and {"comparison.png", "tangent-grad-0.png", "geodesic-grad_orth-0.9.png"} <= names


def test_pictures_that_do_not_fit(tmp_path):
    with pytest.raises(DataError, match="20 x 8 pixels, smaller than the kernel of 11"):
        compare_filters(torch.rand(1, 1, 8, 20), tmp_path)
    with pytest.raises(DataError, match=r"clean image has shape \(1, 20, 21\), the image \(1, 20, 20\)"):
        compare_filters(torch.rand(1, 1, 20, 20), tmp_path, torch.rand(1, 1, 20, 21))
