"""The page: one HTML file with everything in it. Whatever came from a record or a YAML file stays text.

The static part is rendered with autoescaping; the rest is built in the browser by the scripts in ``static/`` from
embedded data, as text nodes alone. A content security policy allows that one script and nothing from elsewhere, so
that even a mistake there runs and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING

from harness import __version__
from harness.catalog import Catalog
from harness.verdict import OUTCOMES
from reports.collect import Content
from reports.howto import HowTo
from reports.numbers import duration
from reports.pagedata import chunk, compressed, core, embedded
from reports.provenance import provenance

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPTS = (
    "dom.js", "address.js", "forest.js", "claims.js", "details.js", "axes.js", "plots.js", "curves.js",
    "papers.js", "main.js",
)  # fmt: skip
"""In the order they are joined; each sees the ones before it."""


def render(catalog: Catalog, content: Content) -> str:
    """The page as text."""
    return "".join(pieces(catalog, content))


def pieces(catalog: Catalog, content: Content) -> Iterator[str]:
    """The page in pieces, so that a large one is never held as a whole."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    how = HowTo(catalog)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["css"] = lambda outcome: str(outcome).replace(" ", "-")
    environment.filters["duration"] = duration
    style, script = _read("page.css"), _script()
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
    template = environment.from_string(resources.files("reports").joinpath("page.html.j2").read_text("utf-8"))
    text = template.render(
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        core=Markup(embedded(core(content, how))),
        content=content,
        outcomes=OUTCOMES,
        families=content.families(),
        where=provenance(content, how),
        version=__version__,
    )
    before, _, after = text.partition("<!--chunks-->")
    yield before
    for part in content.parts:
        # Base64 holds nothing that HTML could mistake.
        yield f'<script type="application/gzip" id="chunk-{part.slug}">{compressed(chunk(catalog, part))}</script>\n'
    yield after


def _script() -> str:
    joined = "\n".join(_read(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{joined}\n}})();\n'


def _read(name: str) -> str:
    return resources.files("reports").joinpath("static", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
