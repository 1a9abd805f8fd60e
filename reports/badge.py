"""A badge with the counts of verdicts, as SVG made here, and the Markdown that shows it in a README."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from html import escape
from typing import Any

from harness.verdict import OUTCOMES
from reports import tables
from reports.collect import Content, PaperPart
from reports.figures import OUTCOME_COLOURS, clean

LABEL_COLOUR = "#3a3a3a"
HEIGHT = 20
SIZE = 11
_PAD = 6.0


def badge(label: str, counts: Counter[str]) -> str:
    """A badge: `label`, then a field for each outcome that occurs, with its count.

    Text is drawn at a width that is fixed beforehand, so that the fields fit it in whatever font a reader has.
    """
    label = clean(label)
    fields = [(label, LABEL_COLOUR)]
    fields += [(f"{counts[o]} {o}", OUTCOME_COLOURS[o]) for o in OUTCOMES if counts[o]]
    if len(fields) == 1:
        fields.append(("no claims", OUTCOME_COLOURS["not measured"]))
    title = tables.counted(counts) if label == "claims" else f"{label}: {tables.counted(counts)}"
    widths = [round(_width(text) + 2 * _PAD, 1) for text, _ in fields]
    total = round(sum(widths), 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total:g}" height="{HEIGHT}" viewBox="0 0 {total:g} {HEIGHT}"'
        f' role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f'<clipPath id="r"><rect width="{total:g}" height="{HEIGHT}" rx="3"/></clipPath>',
        '<g clip-path="url(#r)">',
    ]
    starts = [round(sum(widths[:i]), 1) for i in range(len(widths))]
    for (_, colour), start, width in zip(fields, starts, widths, strict=True):
        # A hair wider than the field, so that no seam shows where two meet.
        parts.append(f'<rect x="{start:g}" width="{width + 0.5:g}" height="{HEIGHT}" fill="{colour}"/>')
    parts.append("</g>")
    font = "Verdana,'DejaVu Sans',Geneva,sans-serif"
    parts.append(f'<g fill="#fff" font-family="{font}" font-size="{SIZE}" text-rendering="geometricPrecision">')
    for (text, _), start, width in zip(fields, starts, widths, strict=True):
        length = round(width - 2 * _PAD, 1)
        parts.append(f'<text x="{start + _PAD:g}" y="14" textLength="{length:g}">{escape(text)}</text>')
    return "\n".join([*parts, "</g>", "</svg>", ""])


def _width(text: str) -> float:
    """Width of `text` in pixels."""
    return float(_font().getlength(text)) * SIZE / 100


@lru_cache(maxsize=1)
def _font() -> Any:
    from pathlib import Path

    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 100)


def name_of(part: PaperPart) -> str:
    """The file of a paper's badge."""
    return f"badge-{part.slug}.svg"


def counts_of(content: Content) -> Counter[str]:
    """Verdicts of all papers by outcome."""
    return sum((part.counts() for part in content.parts), Counter())


def snippet(content: Content, page: str | None) -> str:
    """Markdown for a README: the badge, and what stands behind each number.

    Args:
        content: what to count.
        page: the report's page beside it, to link to; None when there is none.
    """
    counts = counts_of(content)
    image = f"![{tables.counted(counts)}](badge.svg)"
    lines = [f"[{image}]({page})" if page else image, ""]
    checked = sum(counts.values()) - counts["not measured"]
    lines.append(
        f"{checked} of {sum(counts.values())} claims of {len(content.parts)} paper"
        f"{'s' if len(content.parts) != 1 else ''} were measured on {', '.join(content.profiles) or 'no profile'}."
    )
    parts = [part for part in content.parts if any(o != "not measured" for o in part.counts())]
    if len(content.parts) > 1 and parts:
        shown = [o for o in OUTCOMES if counts[o]]
        rows = [[tables.escape(p.paper.title), *(str(p.counts()[o] or "") for o in shown)] for p in parts]
        lines += ["", *tables.table(["paper", *shown], rows, right=range(1, len(shown) + 1))]
    return "\n".join(lines) + "\n"
