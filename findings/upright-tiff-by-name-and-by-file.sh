#!/usr/bin/env bash
# An uncompressed grey TIFF with an orientation tag, as microscopes and scanners write, opened with Pillow.
#
# Guess: opened by name or as an open file, the picture is the same, and ImageOps.exif_transpose stands it upright.
# Seen (Pillow 13.0.0): opened as a file it is right. Opened by name, Pillow maps the pixels into memory and lays them
# out for the size after the turn: a picture of 3 rows and 4 columns comes out with 3 rows of 3, scrambled and without a
# quarter of its pixels, and no error. RGB pictures, which are not mapped, are right both ways.
# Output seen:
#   by name [[9 6 3 0], [10 7 4 1], [11 8 5 2]] from exif_transpose; as a file [[8 4 0], [9 5 1], [10 6 2], [11 7 3]]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from PIL import Image, ImageOps

SIDEWAYS = 6  # a quarter turn clockwise stands it upright


def read(pixels):
    exif = Image.Exif()
    exif[0x112] = SIDEWAYS
    Image.fromarray(pixels).save("picture.tif", exif=exif)
    with open("picture.tif", "rb") as file:
        as_file = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    return np.asarray(ImageOps.exif_transpose(Image.open("picture.tif"))), as_file, np.rot90(pixels, -1)


by_name, as_file, upright = read(np.arange(12, dtype=np.uint8).reshape(3, 4))
print("by name", by_name.tolist(), "as a file", as_file.tolist())
assert np.array_equal(as_file, upright)
assert not np.array_equal(by_name, upright)
colour = read(np.arange(36, dtype=np.uint8).reshape(3, 4, 3))
assert np.array_equal(colour[0], colour[2]) and np.array_equal(colour[1], colour[2])
PY
