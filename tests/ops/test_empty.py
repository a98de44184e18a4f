"""Sizes of zero. The oracle is the formula: where there is no pixel and no channel to read, the output is the bias."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from metric_zoo import MetricZooError, nn, ops
from metric_zoo.geometry import RandersMetric
from metric_zoo.ops import dispatch
from metric_zoo.ops.backends.native import library

EMPTY = {
    "batch": {"batch": 0},
    "channels in": {"channels": 0},
    "channels out": {"out_channels": 0},
    "channels": {"channels": 0, "out_channels": 0},
    "height": {"size": (0, 5), "kernel": (2, 1)},
    "width": {"size": (5, 0), "kernel": (3, 2)},
    "height and width": {"size": (0, 0), "kernel": (2, 2)},
    "height, much padding": {"size": (0, 3), "kernel": (1, 1), "padding": 20},
    "width, longer strides": {"size": (3, 0), "kernel": (2, 2), "stride": 7},
    "batch and height": {"batch": 0, "size": (0, 5), "kernel": (1, 1)},
    "channels in and width": {"channels": 0, "size": (4, 0), "kernel": (1, 1)},
}
RULES = ("offset", "position", "shared", "shift", "ball")
FORMS = {
    "dense": {},
    "one channel": {"channels": 1, "out_channels": 1},
    "many channels": {"channels": 40, "out_channels": 24},
    "grouped": {"channels": 4, "out_channels": 6, "groups": 2, "fields": 2},
    "depthwise": {"channels": 20, "out_channels": 20, "groups": 20, "fields": 5},
}


class Case:
    """Tensors of a call, off the grid, and the call."""

    def __init__(
        self,
        rule,
        batch=2,
        channels=3,
        out_channels=4,
        size=(4, 5),
        kernel=(3, 3),
        padding=1,
        stride=1,
        groups=1,
        fields=1,
        masked=False,
        biased=True,
        dtype=torch.float32,
        channels_last=False,
    ):
        random = lambda *shape: torch.randn(shape, dtype=torch.float64).to(dtype)  # noqa: E731
        self.rule, self.groups, self.window = rule, groups, {"stride": stride, "padding": padding}
        out = [(n + 2 * padding - k) // stride + 1 for n, k in zip(size, kernel, strict=True)]
        cells = kernel[0] * kernel[1]
        self.shape = (batch, out_channels, *out)
        input = random(batch, channels, *size)
        if channels_last:
            input = input.contiguous(memory_format=torch.channels_last)
        field = {
            "offset": lambda: random(batch, 2 * fields * cells, *out),
            "position": lambda: random(batch, fields * cells, 2, *out),
            "shared": lambda: random(1, fields * cells, 2, 1, 1),
            "shift": lambda: random(batch, 2 * fields, *out),
            "ball": lambda: RandersMetric.identity(batch, fields, *out).packed.to(dtype),
        }[rule]()
        mask = random(batch, fields * cells, *out) if masked and rule in ("offset", "position", "shared") else None
        self.leaves = {
            "input": input,
            "weight": random(out_channels, channels // groups, *kernel),
            "field": field,
            **({"bias": random(out_channels)} if biased else {}),
            **({} if mask is None else {"mask": mask}),
        }
        for leaf in self.leaves.values():
            leaf.requires_grad_()

    def run(self, input, weight, field, bias=None, **mask):
        if self.rule == "offset":
            return ops.deform_conv2d(input, field, weight, bias, **self.window, **mask)
        if self.rule == "shift":
            return ops.shifted_conv2d(input, field, weight, bias, **self.window)
        operator = ops.metric_conv2d if self.rule == "ball" else ops.sampled_conv2d
        return operator(input, weight, field, bias, groups=self.groups, **self.window, **mask)

    def check(self):
        """That nothing but the bias is read, and nothing but the bias has a gradient that is not zero."""
        output, bias = self.run(**self.leaves), self.leaves.get("bias")
        expected = torch.zeros(self.shape, dtype=output.dtype)
        expected = expected if bias is None else expected + bias[:, None, None]
        assert output.dtype == self.leaves["input"].dtype
        assert output.shape == self.shape and torch.equal(output, expected)
        output.sum().backward()
        for name, leaf in self.leaves.items():
            assert leaf.grad.shape == leaf.shape, name
            pixels = self.shape[0] * self.shape[2] * self.shape[3] if name == "bias" else 0
            assert torch.equal(leaf.grad, torch.full_like(leaf, pixels)), name

    def check_twice(self):
        """That the gradients have derivatives, and those are zero."""
        leaves = list(self.leaves.values())
        first = torch.autograd.grad(self.run(**self.leaves).square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(
            sum(g.square().sum() for g in first), leaves, allow_unused=True, materialize_grads=True
        )
        for (name, leaf), gradient in zip(self.leaves.items(), second, strict=True):
            assert gradient.shape == leaf.shape and (name == "bias" or not gradient.any()), name


def forms(empty: str):
    """Every form of a call, but where the empty size is also the form's."""
    for form, more in FORMS.items():
        sizes = {**more, **EMPTY[empty]}
        if not (form == "depthwise" and "channels" in empty):
            yield sizes


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("empty", EMPTY)
def test_nothing_to_read(empty, rule):
    for sizes, masked, biased in product(forms(empty), (False, True), (False, True)):
        Case(rule, masked=masked, biased=biased, **sizes).check()
    for dtype, last in product((torch.float64, torch.bfloat16, torch.float16), (False, True)):
        Case(rule, dtype=dtype, channels_last=last, **{**FORMS["one channel"], **EMPTY[empty]}).check()
        Case(rule, dtype=dtype, channels_last=last, **EMPTY[empty]).check()


@pytest.mark.parametrize("empty", EMPTY)
def test_a_recorded_program_has_nothing_to_read_either(empty, monkeypatch):
    monkeypatch.setattr(dispatch, "is_recorded", lambda input: True)
    for rule, masked in (("offset", True), ("ball", False)):
        Case(rule, masked=masked, **EMPTY[empty]).check()


@pytest.mark.parametrize("empty", EMPTY)
def test_second_derivatives_of_nothing(empty):
    for rule, sizes in product(RULES, forms(empty)):
        Case(rule, masked=True, dtype=torch.float64, **sizes).check_twice()


@pytest.mark.parametrize("isa", library.ISAS)
def test_every_instruction_set(isa, backend):
    if backend != "native":
        pytest.skip("of the native backend")
    try:
        library.limit_isa(isa)
        for empty, rule in product(EMPTY, RULES):
            for sizes in forms(empty):
                Case(rule, masked=True, **sizes).check()
    finally:
        library.limit_isa("avx512")


@pytest.mark.parametrize("empty", ["batch", "channels in", "channels out", "height", "width"])
def test_triton(empty, backend):
    pytest.importorskip("triton")
    if backend != "torch":
        pytest.skip("of the triton backend, once")
    # Triton's interpreter takes a while for every program: two pixels of output.
    small = {"size": tuple(min(n, 1) for n in EMPTY[empty].get("size", (1, 1))), "kernel": (1, 2), "padding": 1}
    with ops.use_backend("triton"):
        for rule in ("offset", "ball"):
            Case(rule, masked=True, **{**EMPTY[empty], **small, "stride": 2}).check()


@pytest.mark.parametrize("empty", ["height", "width"])
def test_a_position_that_is_nan_stays_nan_where_there_is_no_pixel(empty):
    for form in FORMS.values():
        case = Case("offset", **{**form, **EMPTY[empty]})
        with torch.no_grad():
            case.leaves["field"][0, 0, 0, 0] = torch.nan
        output = case.run(**case.leaves)
        outputs = output.shape[1] // form.get("fields", 1)
        assert output[0, :outputs, 0, 0].isnan().all() and not output[..., 1:, :].isnan().any()


REFUSED = {
    "larger kernel": {"size": (4, 5), "kernel": (7, 7)},
    "larger kernel, no batch": {"batch": 0, "size": (4, 5), "kernel": (7, 7)},
    "no height, no padding": {"size": (0, 5), "kernel": (1, 1), "padding": 0},
    "no kernel height": {"kernel": (0, 3)},
    "no kernel": {"kernel": (0, 0)},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("refused", REFUSED)
def test_what_conv2d_refuses_is_refused(refused, rule):
    sizes = {"size": (4, 5), "kernel": (3, 3), "padding": 1, "batch": 1, **REFUSED[refused]}
    input, weight = torch.zeros(sizes["batch"], 3, *sizes["size"]), torch.zeros(4, 3, *sizes["kernel"])
    with pytest.raises(RuntimeError):
        F.conv2d(input, weight, padding=sizes["padding"])
    fields = {"offset": (18,), "position": (9, 2), "shared": (9, 2), "shift": (2,), "ball": (5,)}
    case = Case(rule, size=(4, 5), padding=sizes["padding"])
    with pytest.raises(MetricZooError, match="kernel") as caught:
        case.run(input, weight, torch.zeros(sizes["batch"], *fields[rule], 2, 2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 2, 5, 4), (2, 0, 5, 4), (2, 2, 0, 4), (2, 2, 5, 0), (0, 0, 0, 0)], ids=str)
def test_blending_an_empty_image(shape):
    for grid, alike in product(((3,), (2, 3)), (False, True)):
        places = (1 if alike else shape[0], len(grid), *shape[2:])
        leaves = [torch.randn(size) for size in (shape, places, (*grid, 5, 2), (*grid, 5))]
        for leaf in leaves:
            leaf.requires_grad_()
        output = ops.blended_conv2d(*leaves)
        assert output.shape == shape
        output.sum().backward()
        assert all(leaf.grad.shape == leaf.shape and not leaf.grad.any() for leaf in leaves)


LAYERS = sorted(name for name in nn.__all__ if name.endswith("Conv2d") and name != "SampledConv2d")
WITHOUT_A_HEAD = ("ActiveConv2d", "DilatedConv2d")


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_take_an_empty_batch(kind):
    x = torch.zeros(0, 3, 4, 5)
    assert getattr(nn, kind)(3, 6, 3, padding=1)(x).shape == torch.nn.Conv2d(3, 6, 3, padding=1)(x).shape


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("size", [(0, 5), (5, 0)], ids=str)
def test_layers_without_a_pixel(kind, size):
    """What conv2d says, from the layer's head; the bias, of a layer without one."""
    layer, x = getattr(nn, kind)(3, 6, 3, padding=2), torch.zeros(2, 3, *size)
    if kind in WITHOUT_A_HEAD:
        assert torch.equal(layer(x), layer.bias[:, None, None].expand_as(layer(x)))
        return
    if kind == "SpatialTransformerConv2d":  # the mean of no pixel is no number
        assert layer(x).isnan().all()
        return
    with pytest.raises(RuntimeError) as theirs:
        F.conv2d(x, torch.zeros(6, 3, 3, 3), padding=2)
    with pytest.raises(RuntimeError) as ours:
        layer(x)
    assert str(ours.value) == str(theirs.value)
