"""What a model is run with: a tensor, a tuple of positional arguments, a dict of keywords."""

from __future__ import annotations

from collections import UserDict

import pytest
import torch
from torch import Tensor, nn

import metric_zoo as mz
from metric_zoo.converters import analyse

X = torch.rand(1, 3, 32, 32)


def body() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))


class Keyword(nn.Module):
    """As models of transformers are called."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, *, pixel_values: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        return {"logits": self.body(pixel_values) * scale}


class Two(nn.Module):
    """A keyword beside a positional argument; its convolutions hang in a module that takes keywords only."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Keyword()

    def forward(self, image: Tensor, *, mask: Tensor) -> Tensor:
        return self.inner(pixel_values=image * mask, scale=2.0)["logits"]


class Values(nn.Module):
    """What it does depends on a value: it runs on no meta tensor, and torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, *, pixel_values: Tensor) -> Tensor:
        return self.body(pixel_values if pixel_values.sum() > 0 else -pixel_values)


MASK = torch.ones(1, 1, 32, 32)
CASES = {
    "keyword": (Keyword, {"pixel_values": X}),
    "keywords": (Keyword, {"pixel_values": X, "scale": 0.5}),
    "a mapping": (Keyword, UserDict(pixel_values=X)),
    "none": (Keyword, None),
    "positional and keyword": (Two, {"image": X, "mask": MASK}),
    "values": (Values, {"pixel_values": X}),
    "values, none": (Values, None),
    "positional by name": (body, {"input": X}),
    "a dict in a tuple": (lambda: Held(), ({"image": X},)),
    "a list is one argument": (lambda: Held(), ([X],)),
}


class Held(nn.Module):
    """Takes a container."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, images: dict[str, Tensor] | list[Tensor]) -> Tensor:
        return self.body(images["image"] if isinstance(images, dict) else images[0])


@pytest.mark.parametrize("output", ["module", "graph"])
@pytest.mark.parametrize(("make", "example"), CASES.values(), ids=CASES)
def test_models_are_called_as_the_example_says(make, example, output):
    """torch itself is the judge: the same call of the original, before and after."""
    model = make().eval()
    if output == "graph" and isinstance(model, (Values, Held)):
        pytest.skip("no graph of a model that looks at values")
    converted = mz.convert(model, where="all", example_input=example, output=output)
    report = mz.conversion_report(converted)
    assert len(report.converted) == 1 and report.output.maximum <= 1e-5 * report.output.scale
    given = {"pixel_values": X} if example is None else example
    outputs = [m(*given) if isinstance(given, tuple) else m(**given) for m in (model, converted)]
    torch.testing.assert_close(*map(torch.utils._pytree.tree_leaves, outputs))


@pytest.mark.parametrize("make", [Keyword, Two], ids=["whole", "in parts"])
def test_the_trace_follows_keywords(make):
    """Neighbours and receptive fields, which only a trace tells: two 3x3 convolutions see 5 pixels."""
    example = {"pixel_values": X} if make is Keyword else {"image": X, "mask": MASK}
    analysis = analyse(make(), example)
    assert analysis.traced and [node.receptive_field for node in analysis.nodes] == [3, 5]


def test_fits_follow_keywords():
    model = mz.convert(Keyword(), "shifted", example_input={"pixel_values": X})
    fitted = mz.convert(model, "metric", init="fit", example_input={"pixel_values": X})
    assert [layer.kind for layer in mz.conversion_report(fitted).converted.values()] == ["metric"]


def test_sparse_kernels_follow_keywords():
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.conv = nn.Conv2d(4, 4, 15, padding=7, groups=4)

        def forward(self, *, pixel_values: Tensor) -> Tensor:
            return self.conv(self.stem(pixel_values))

    options = {"steps": 3, "max_error": 99, "min_speedup": 0}
    sparse = mz.convert(Deep(), "sparse", example_input={"pixel_values": X}, **options)
    assert list(mz.conversion_report(sparse).converted) == ["conv"]


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (X, "forward takes keywords, pass a dict with \\['pixel_values'\\]"),
        ((X,), "forward takes keywords, pass a dict with \\['pixel_values'\\]"),
        ({"pixels": X}, "does not run on the example_input given .*pixels"),
        ({0: X}, "key 0: a dict holds keywords"),
        ("image", "a tensor .*, a tuple of positional arguments or a dict of keywords"),
    ],
    ids=["tensor", "tuple", "another name", "no name", "text"],
)
def test_errors_say_what_to_pass(example, message):
    with pytest.raises(mz.ConversionError, match=message):
        mz.convert(Keyword(), example_input=example)


def test_the_size_that_timm_was_given_is_tried():
    """Its blocks attend to windows of this size only."""
    import timm

    model = timm.create_model("coatnet_pico_rw_224", img_size=96)
    assert analyse(model, neighbours=False).nodes[0].input_shape == (1, 3, 96, 96)
