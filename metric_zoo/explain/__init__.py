"""Pictures of what adaptive convolutions do."""

from metric_zoo.explain.filtering import compare_filters
from metric_zoo.explain.images import read_image, write_image

__all__ = ["compare_filters", "read_image", "write_image"]
