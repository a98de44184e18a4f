"""Pictures of what adaptive convolutions do."""

from metric_zoo.explain.filtering import compare_filters

__all__ = ["compare_filters"]
