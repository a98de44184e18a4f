"""Functional operators. Kinds differ only in where they sample; `sampled_conv2d` is what they share."""

from metric_zoo.ops import decompositions  # noqa: F401  (it registers them)
from metric_zoo.ops.affine import affine_conv2d
from metric_zoo.ops.backend import backend, use_backend
from metric_zoo.ops.ball_filter import ball_filter
from metric_zoo.ops.bilinear import bilinear_sample
from metric_zoo.ops.blended import blended_conv2d
from metric_zoo.ops.deform import deform_conv2d
from metric_zoo.ops.metric import metric_conv2d
from metric_zoo.ops.onnx import onnx_translations
from metric_zoo.ops.sampled import sampled_conv2d
from metric_zoo.ops.shifted import shifted_conv2d
from metric_zoo.ops.snake import snake_conv2d
from metric_zoo.ops.star import star_conv2d

__all__ = [
    "affine_conv2d",
    "backend",
    "ball_filter",
    "bilinear_sample",
    "blended_conv2d",
    "deform_conv2d",
    "metric_conv2d",
    "onnx_translations",
    "sampled_conv2d",
    "shifted_conv2d",
    "snake_conv2d",
    "star_conv2d",
    "use_backend",
]
