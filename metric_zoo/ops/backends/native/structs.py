"""The structures of csrc/problem.h, field by field, and whether a library has them as they are here."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import Structure, c_double, c_int64, c_void_p, sizeof


class Problem(Structure):
    """Sizes, strides and options of one call."""

    _fields_ = [
        (name, c_int64)
        for name in (
            *("batch", "height", "width", "channels", "out_channels", "out_height", "out_width"),
            *("kernel_height", "kernel_width", "stride_height", "stride_width", "top", "left"),
            *("dilation_height", "dilation_width", "groups", "fields", "rule", "numbers"),
            *("field_batch", "field_group", "field_cell", "field_component", "field_row", "field_column"),
            *("out_channel", "out_pixel", "weight_out", "weight_channel", "weight_cell"),
            *("tables_down", "tables_across", "threads"),
        )
    ]


class Tensors(Structure):
    """Pointers of one call; null where there is nothing, or nothing is wanted."""

    _fields_ = [
        *((name, c_void_p) for name in ("input", "weight", "bias", "field", "mask", "table")),
        ("table_eps", c_double),
        *(
            (name, c_void_p)
            for name in ("output", "grad", "grad_input", "grad_weight", "grad_field", "grad_mask", "grad_table")
        ),
    ]


class Stencil(Structure):
    """Of a call in which all pixels sample alike."""

    _fields_ = [
        *((name, c_int64) for name in ("batch", "channels", "height", "width", "out_height", "out_width")),
        *((name, c_void_p) for name in ("first", "rows", "columns")),
        ("threads", c_int64),
    ]


STRUCTS = (Problem, Tensors, Stencil)


def layout() -> list[str]:
    """Lines as ``Problem 256`` and ``Problem.height 8``: bytes that a structure takes, and where its fields begin."""
    return [line for struct in STRUCTS for line in _lines(struct)]


def first_difference(theirs: list[str]) -> str:
    """Between a library's layout and ours, in words; empty where there is none."""
    ours = layout()
    # What one side lacks at its end is a difference, too.
    longest = max(len(ours), len(theirs))
    for there, here in zip(_filled(theirs, longest), _filled(ours, longest), strict=True):
        if there != here:
            return f"it has {there!r} where this version has {here!r}"
    return ""


def _lines(struct: type[Structure]) -> Iterator[str]:
    yield f"{struct.__name__} {sizeof(struct)}"
    for name, *_ in struct._fields_:
        yield f"{struct.__name__}.{name} {getattr(struct, name).offset}"


def _filled(lines: list[str], length: int) -> list[str]:
    return lines + ["nothing"] * (length - len(lines))
