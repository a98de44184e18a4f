"""Names: models by name, under our functions and the registries' own, and on disk."""

from metric_zoo.zoo.create import create_model, list_models
from metric_zoo.zoo.io import load, save
from metric_zoo.zoo.register import register

__all__ = ["create_model", "list_models", "load", "register", "save"]
