"""Pictures of what adaptive convolutions do."""

from metric_zoo.explain.balls import draw_balls
from metric_zoo.explain.cam import draw_cams, grad_cam
from metric_zoo.explain.fields import draw_fields
from metric_zoo.explain.filtering import compare_filters
from metric_zoo.explain.prepare import Look, prepare
from metric_zoo.explain.probe import Probe, probe, sampled_layers
from metric_zoo.explain.report import explain_models

__all__ = [
    "Look",
    "Probe",
    "compare_filters",
    "draw_balls",
    "draw_cams",
    "draw_fields",
    "explain_models",
    "grad_cam",
    "prepare",
    "probe",
    "sampled_layers",
]
