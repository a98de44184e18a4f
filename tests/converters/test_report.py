"""A report says what was compared, and where nothing could be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import metric_zoo as mz
from metric_zoo.converters.verify import difference, output_difference

X = torch.rand(1, 3, 16, 16)


def network(value: float | None = None, where: int = 0) -> nn.Sequential:
    """Three convolutions, of which one has a weight of ``value`` in place of every weight or of its first."""
    net = nn.Sequential(*(nn.Conv2d(c, 4, 3, padding=1) for c in (3, 4, 4)))
    if value is not None:
        nn.init.constant_(net[where].weight, value)
    return net


class Empty(nn.Module):
    """As a detector that finds nothing: boxes and scores of none."""

    def __init__(self, count: int = 0) -> None:
        super().__init__()
        self.body, self.count = network(), count

    def forward(self, image: Tensor) -> list[dict[str, Tensor]]:
        found = self.body(image).flatten()[: self.count]
        return [{"boxes": found[:, None].expand(-1, 4), "labels": found.long()}]


NOTHING = {
    "NaN weights": (lambda: network(float("nan")), "none of 1,024 values is finite", "layers not compared: 2 of 2, 1"),
    "infinite weights": (
        lambda: network(float("inf")),
        "none of 1,024 values is finite",
        "layers not compared: 2 of 2",
    ),
    "NaN in the last": (lambda: network(float("nan"), 2), "none of 1,024 values is finite", "not compared: 1 of 2, 2"),
    "no detections": (Empty, "the output is empty", "layers unchanged"),
}


@pytest.mark.parametrize(("make", "why", "layers"), NOTHING.values(), ids=NOTHING)
def test_nothing_is_not_said_to_be_unchanged(make, why, layers):
    report = mz.conversion_report(mz.convert(make(), where="all", example_input=X))
    text = str(report)
    assert report.output is None and report.not_compared == why and f"outputs not compared: {why}" in text
    assert "output unchanged" not in text and layers in text
    empty = [name for name, layer in report.converted.items() if not layer.difference.compared]
    frame = report.to_frame().set_index("name")
    assert all(frame.loc[name].isna()["difference"] for name in empty)
    assert report.worst_layer is None or report.worst_layer[0] not in empty


def test_what_is_partly_finite_is_compared_there():
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, image: Tensor) -> Tensor:
            return torch.where(torch.arange(16) < 4, torch.nan, self.body(image))

    report = mz.conversion_report(mz.convert(Partly(), example_input=X))
    assert (report.output.compared, report.output.values) == (768, 1024)
    assert "(256 of 1,024 values are not finite)" in str(report) and report.not_compared is None


def test_zeros_are_said_to_prove_little():
    net = nn.Sequential(network(), nn.Conv2d(4, 4, 1, bias=False))
    nn.init.zeros_(net[1].weight)
    text = str(mz.conversion_report(mz.convert(net, example_input=X)))
    assert "scale 0.00e+00 (all values are zero, which proves little)" in text


def test_detections_are_compared():
    report = mz.conversion_report(mz.convert(Empty(count=3), example_input=X))
    assert report.output.compared == 12 and "output unchanged" in str(report)


def test_a_sparse_conversion_says_it_too():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 15, padding=7, groups=4), nn.Conv2d(4, 4, 1))
    nn.init.constant_(net[2].weight, float("nan"))
    options = {"steps": 3, "max_error": 99, "min_speedup": 0}
    report = mz.conversion_report(mz.convert(net, "sparse", example_input=X, **options))
    assert (
        report.output is None and "outputs not compared: none of" in str(report) and "output moved" not in str(report)
    )


INF, NAN = float("inf"), float("nan")
TENSORS = {  # new, old, maximum, scale, compared
    "finite": ([1.0, 2.5], [1.0, 2.0], 0.5, 2.0, 2),
    "NaN in both": ([NAN, 2.0], [NAN, 2.0], 0.0, 2.0, 1),
    "infinity in both": ([INF, 2.0], [INF, 2.0], 0.0, 2.0, 1),
    "infinities of two signs": ([INF, 2.0], [-INF, 2.0], INF, 2.0, 1),
    "NaN in the new": ([NAN, 2.0], [1.0, 2.0], NAN, 2.0, 2),
    "NaN in the old": ([1.0, 2.0], [NAN, 2.0], NAN, 2.0, 1),
    "nothing": ([], [], 0.0, 0.0, 0),
}


@pytest.mark.parametrize(("new", "old", "maximum", "scale", "compared"), TENSORS.values(), ids=TENSORS)
def test_differences(new, old, maximum, scale, compared):
    found = difference(torch.tensor(new), torch.tensor(old))
    assert found.maximum == pytest.approx(maximum, nan_ok=True)
    assert (found.scale, found.compared, found.values) == (scale, compared, len(old))
    assert output_difference([torch.tensor(new)], [torch.tensor(old)]) == found or maximum != maximum
