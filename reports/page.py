"""The page: one HTML file with everything in it. Whatever came from a record or a YAML file is escaped."""

from __future__ import annotations

from importlib import resources
from typing import Any

from harness import __version__
from harness.verdict import OUTCOMES
from reports.collect import Content


def render(content: Content, figures: dict[str, list[tuple[str, str]]], overview: str | None) -> str:
    """The page as text.

    Args:
        content: what to show.
        figures: per paper, titles and SVG drawn by us; these alone go in unescaped.
        overview: the same for all papers, or None.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["css"] = lambda outcome: str(outcome).replace(" ", "-")
    environment.filters["duration"] = _duration
    text = resources.files("reports").joinpath("page.html.j2").read_text(encoding="utf-8")
    drawn: dict[str, list[tuple[str, Any]]] = {
        slug: [(title, Markup(svg)) for title, svg in found] for slug, found in figures.items()
    }
    return environment.from_string(text).render(
        content=content,
        figures=drawn,
        overview=Markup(overview) if overview else None,
        outcomes=OUTCOMES,
        version=__version__,
        scoreboard=content.scoreboard(),
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
