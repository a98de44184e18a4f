"""The layers, one kind a file, and the registry of kinds."""

from metric_zoo.nn import registry, watch  # noqa: F401, kinds in their order; and it listens
from metric_zoo.nn.active import ActiveConv2d
from metric_zoo.nn.affine import AffineConv2d
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.dcn.v3 import DCNv3
from metric_zoo.nn.dcn.v4 import DCNv4
from metric_zoo.nn.dcnv3 import DCNv3Conv2d
from metric_zoo.nn.dcnv4 import DCNv4Conv2d
from metric_zoo.nn.deform import DeformConv2d
from metric_zoo.nn.dilated import DilatedConv2d
from metric_zoo.nn.freeze import freeze_kernels
from metric_zoo.nn.geodesic import GeodesicConv2d
from metric_zoo.nn.health import sampling_health
from metric_zoo.nn.kind import KINDS
from metric_zoo.nn.metric import MetricConv2d
from metric_zoo.nn.modulated import ModulatedDeformConv2d
from metric_zoo.nn.registry import get_kind, list_kinds
from metric_zoo.nn.regularize import head_regularization
from metric_zoo.nn.shifted import ShiftedConv2d
from metric_zoo.nn.similar import SimilarConv2d
from metric_zoo.nn.snake import SnakeConv2d
from metric_zoo.nn.sparse import SparseKernelComplex2d
from metric_zoo.nn.star import StarConv2d
from metric_zoo.nn.stn import SpatialTransformerConv2d
from metric_zoo.nn.training import head_parameters, parameter_groups

__all__ = [
    "KINDS",
    "ActiveConv2d",
    "AffineConv2d",
    "DCNv3",
    "DCNv3Conv2d",
    "DCNv4",
    "DCNv4Conv2d",
    "DeformConv2d",
    "DilatedConv2d",
    "GeodesicConv2d",
    "MetricConv2d",
    "ModulatedDeformConv2d",
    "SampledConv2d",
    "ShiftedConv2d",
    "SimilarConv2d",
    "SnakeConv2d",
    "SparseKernelComplex2d",
    "SpatialTransformerConv2d",
    "StarConv2d",
    "freeze_kernels",
    "get_kind",
    "head_parameters",
    "head_regularization",
    "list_kinds",
    "parameter_groups",
    "sampling_health",
]
