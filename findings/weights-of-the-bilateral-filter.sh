#!/usr/bin/env bash
# scikit-image's bilateral filter, a usual peer of learned denoisers.
#
# Guess: with a huge sigma_color the filter is a Gaussian one over its window, symmetric about the pixel.
# Seen (scikit-image 0.26.0): a single bright pixel comes out lopsided, with its smallest neighbours where it was. For
# an odd window, which the default always is, the table of spatial weights has one row and column more than the window,
# and is read as if it had not: every row of weights is shifted against the one before. Scores of this peer are those
# of another filter than the definition's.
# Output seen, a bright pixel of 1 after sigma_spatial=2, win_size=5:
#   scikit-image [[0.023 0.049 0.071 0.081 0.071] [0.049 0.026 0.043 0.063 0.071] [0.063 0.043 0.023 0.03 0.043]
#                 [0.049 0.043 0.03 0.016 0.016] [0.023 0.026 0.023 0.016 0.009]]
#   Gaussian     [[0.023 0.034 0.038 0.034 0.023] [0.034 0.049 0.056 0.049 0.034] [0.038 0.056 0.063 0.056 0.038] ...]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scikit-image==0.26.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from skimage.restoration import denoise_bilateral

image = np.zeros((15, 15))
image[7, 7] = 1
found = denoise_bilateral(image, sigma_color=1e3, sigma_spatial=2, win_size=5, bins=10**6)[5:10, 5:10]
steps = np.arange(-2, 3)
gaussian = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * 2**2))
gaussian /= gaussian.sum()
print("scikit-image", found.round(3), "Gaussian", gaussian.round(3), sep="\n")
assert np.allclose(gaussian, gaussian.T) and np.allclose(gaussian, gaussian[::-1])
assert not np.allclose(found, found[::-1], atol=0.01)
assert np.abs(found - gaussian).max() > 0.03
assert found[2, 2] < 0.5 * found[0, 3]
PY
