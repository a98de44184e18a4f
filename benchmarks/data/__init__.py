"""Data sets by name, as training (augmented), clean training and test splits."""

from __future__ import annotations

from metric_zoo.benchmarks.data.folder import load_folder
from metric_zoo.benchmarks.data.huggingface import load_huggingface
from metric_zoo.benchmarks.data.memory import load_digits, load_torchvision
from metric_zoo.benchmarks.data.splits import Augmented, Splits, data_root
from metric_zoo.benchmarks.recipe_sections import DataConfig
from metric_zoo.errors import DataError, suggest

TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
NAMES = ("digits", *TORCHVISION, "folder", "huggingface")


def load_data(config: DataConfig) -> Splits:
    """Load a data set.

    Raises:
        DataError: for an unknown name, or data that are not where they should be.
    """
    if config.name == "digits":
        return load_digits(config)
    if config.name in TORCHVISION:
        return load_torchvision(config, TORCHVISION[config.name])
    if config.name == "folder":
        return load_folder(config)
    if config.name == "huggingface":
        return load_huggingface(config)
    raise DataError(f"unknown data set {config.name!r}{suggest(config.name, NAMES)}; known: {', '.join(NAMES)}")


__all__ = ["NAMES", "Augmented", "Splits", "data_root", "load_data"]
