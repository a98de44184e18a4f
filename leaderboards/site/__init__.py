"""A static site that opens from disk and fetches nothing."""

from metric_zoo.leaderboards.site.pages import render_site

__all__ = ["render_site"]
