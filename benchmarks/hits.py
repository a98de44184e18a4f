"""Which test images a network answered right, in a record: one bit each. Needs no torch."""

from __future__ import annotations

import base64

import numpy as np


def pack_hits(hits: np.ndarray) -> str:
    """``(images,)`` bool as base64; `unpack_hits` reads it."""
    return base64.b64encode(np.packbits(hits).tobytes()).decode("ascii")


def unpack_hits(packed: str, images: int) -> np.ndarray:
    """``(images,)`` bool from `pack_hits`.

    Raises:
        ValueError: if it is no base64 or holds another number of images.
    """
    data = np.frombuffer(base64.b64decode(packed, validate=True), dtype=np.uint8)
    if len(data) != (images + 7) // 8:
        raise ValueError(f"{len(data)} bytes do not hold one bit for each of {images} images")
    return np.unpackbits(data, count=images).astype(bool)
