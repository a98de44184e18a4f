"""One self-contained page."""

from metric_zoo.leaderboards.site.page import render

__all__ = ["render"]
