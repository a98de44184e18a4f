"""The converter: trace to understand, swap on the original, prove it."""

from metric_zoo.converters.adoption.adopt import adopt
from metric_zoo.converters.analyse import Analysis, analyse
from metric_zoo.converters.convert import convert, revert
from metric_zoo.converters.layer_report import LayerReport
from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.report import ConversionReport, conversion_report

__all__ = [
    "Analysis",
    "ConvNode",
    "ConversionReport",
    "LayerReport",
    "adopt",
    "analyse",
    "conversion_report",
    "convert",
    "revert",
]
