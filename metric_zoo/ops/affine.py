"""Convolution whose window is moved by a linear map per pixel."""

from __future__ import annotations

from torch import Tensor

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.ops.dispatch import sampled
from metric_zoo.ops.padding import Padding
from metric_zoo.ops.rules import RULES
from metric_zoo.ops.window import check_fields, window_for

FORMS = ("affine", "similar", "symmetric")


def affine_conv2d(
    input: Tensor,
    map: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    form: str = "affine",
) -> Tensor:
    r"""Convolution whose samples lie at :math:`y_i(p) = A(p)\, g_i + t(p)` around each window's centre.

    g is the ordinary grid; vectors are (x, y) in pixels. The affine case is the affine-adaptive window of *Lindeberg,
    Garding* (Image and Vision Computing 15, 1997, https://doi.org/10.1016/S0262-8856(97)01144-X), predicted per pixel.

    Args:
        input: ``(B, C, H, W)``.
        map: ``(B, n*G, Ho, Wo)``, one map per OUTPUT pixel and group of channels, with G dividing C. The n channels of
            a group are, for ``form="affine"``, the entries of A - I by rows, then t (n = 6); for ``"similar"`` a, b
            and t with A = [[1 + a, -b], [b, 1 + a]] (n = 4); for ``"symmetric"`` the xx, xy and yy entries of A - I,
            then t (n = 5).
        weight: ``(O, C/groups, kh, kw)``.
        bias: ``(O,)``.
        stride, padding, dilation, groups: as in `sampled_conv2d`.
        form: of the map.

    Returns:
        ``(B, O, Ho, Wo)``; for a map of zeros `torch.nn.functional.conv2d`, up to the order of summation.

    Raises:
        MetricZooError: when shapes, dtypes or devices do not fit together, or for an unknown form.
    """
    if form not in FORMS:
        raise MetricZooError(f"form={form!r}: expected one of {FORMS}{suggest(str(form), FORMS)}")
    window = window_for(input, weight, bias, stride, padding, dilation, groups)
    numbers = RULES[form].numbers(window.kernel_size, 0)
    map_groups = check_fields("map", map, input, numbers, window)
    return sampled(input, weight, bias, map.unflatten(1, (map_groups, 1, numbers)), None, form, window)
