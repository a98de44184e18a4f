"""Which implementation the operators run on."""

from __future__ import annotations

from metric_zoo.errors import MetricZooError, suggest

_BACKENDS = ("torch",)


def backend() -> str:
    """The name of the backend in use. ``"torch"`` (grid_sample and a product) runs on every device."""
    return _BACKENDS[0]


def use_backend(name: str) -> None:
    """Choose the backend for all operators of this process. This build has one, so a known name changes nothing.

    Raises:
        MetricZooError: if this build has no backend of that name.
    """
    if name not in _BACKENDS:
        raise MetricZooError(f"unknown backend {name!r}{suggest(name, _BACKENDS)}; this build has: {_BACKENDS}")
