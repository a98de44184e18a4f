"""A recipe small enough to run in a test."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

TINY = {
    "name": "tiny",
    "data": {"name": "digits", "image_size": 16},
    "models": [{"name": "resnet10t", "options": {"channels": [8, 8, 16, 16]}, "small_image_stem": True}],
    "kinds": ["standard", "shifted"],
    "seeds": [0],
    "train": {"epochs": 2, "batch_size": 64, "lr": 0.005},
    "measure": {"batch_size": 16, "warmup": 1, "repeats": 3, "seconds": 0, "corruptions": False},
}


@pytest.fixture
def write_recipe(tmp_path: Path):
    """Write TINY with changes to a file."""

    def write(**changes) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({**TINY, **changes}))
        return path

    return write
