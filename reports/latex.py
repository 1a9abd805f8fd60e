"""A LaTeX table per paper, for ``\\input`` into a manuscript. It needs ``booktabs`` and compiles with pdfLaTeX."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from reports.collect import PaperPart, Row

MOST_ROWS = 18
"""Rows of one table; a float cannot be broken over pages, so longer ones go on in the next."""

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}", "-": r"{-}",
    "–": r"\textendash{}", "—": r"\textemdash{}", "‘": r"\textquoteleft{}", "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}", "”": r"\textquotedblright{}", "…": r"\ldots{}", "\u00a0": "~", "\u202f": r"\,",
    "€": r"\texteuro{}", "°": r"\textdegree{}", "µ": r"$\mu$", "·": r"$\cdot$", "×": r"$\times$", "±": r"$\pm$",
    "−": r"$-$", "≤": r"$\leq$", "≥": r"$\geq$", "≠": r"$\neq$", "≈": r"$\approx$", "∞": r"$\infty$", "√": r"$\surd$",
    "→": r"$\rightarrow$", "←": r"$\leftarrow$", "∈": r"$\in$", "∑": r"$\sum$", "∏": r"$\prod$", "∂": r"$\partial$",
    "¬": r"$\neg$", "÷": r"$\div$",
}  # fmt: skip
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi",
    "ρ": "rho", "σ": "sigma", "ς": "varsigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi",
    "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma",
    "Υ": "Upsilon", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_SPECIAL |= {letter: f"${chr(92)}{name}$" for letter, name in _GREEK.items()}
_RAISED = {
    "⁰": "0",
    "¹": "1",
    "²": "2",
    "³": "3",
    "⁴": "4",
    "⁵": "5",
    "⁶": "6",
    "⁷": "7",
    "⁸": "8",
    "⁹": "9",
    "⁻": "-",
}
_SPECIAL |= {raised: f"$^{{{plain}}}$" for raised, plain in _RAISED.items()}


def escape(text: str) -> str:
    """`text` as LaTeX that typesets it as it is, on one line.

    Letters of Latin-1 stay; signs and Greek letters become commands. A character that pdfLaTeX's default fonts lack is
    written as its closest form in ASCII, or as its code point where there is none, so that nothing is lost unseen.
    """
    return "".join(_character(c) for c in " ".join(text.split()))


def _character(c: str) -> str:
    if c in _SPECIAL:
        return _SPECIAL[c]
    if c.isascii() or (0xC0 <= ord(c) <= 0xFF):
        return c if c.isprintable() else f"[U+{ord(c):04X}]"
    plain = "".join(p for p in unicodedata.normalize("NFKD", c) if p.isascii() and p.isprintable())
    return "".join(_SPECIAL.get(p, p) for p in plain) if plain else f"[U+{ord(c):04X}]"


def table(part: PaperPart, rows: Sequence[Row] | None = None) -> str:
    """The claims of a paper that were measured, as one or more tables over the full width of the text.

    Claims that were not measured are counted in the caption. Labels are ``tab:<paper>``, ``tab:<paper>-2`` and so on.
    """
    shown = [r for r in (part.rows if rows is None else rows) if r.verdict.outcome != "not measured"]
    missing = len(part.rows if rows is None else rows) - len(shown)
    several = len({r.verdict.profile for r in part.rows}) > 1
    pieces = [shown[i : i + MOST_ROWS] for i in range(0, len(shown), MOST_ROWS)] or [[]]
    lines = [
        "% Needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}, \\usepackage{textcomp} before LaTeX 2020."
    ]
    for number, piece in enumerate(pieces, 1):
        lines += _one(part, piece, number, missing if number == 1 else None, several)
    return "\n".join(lines) + "\n"


def _one(part: PaperPart, rows: Sequence[Row], number: int, missing: int | None, several: bool) -> list[str]:
    caption = f"Claims of {escape(part.paper.title)} ({part.paper.year}) and what was measured"
    if missing is None:
        caption += " (continued)."
    else:
        caption += "; brackets are 95\\,\\% intervals."
        if missing:
            caption += f" {missing} further claim{'s were' if missing != 1 else ' was'} not measured."
    columns = r"@{}p{0.36\textwidth}" + ("l" if several else "") + r"p{0.19\textwidth}p{0.22\textwidth}l@{}"
    head = ["Claim", *(["Profile"] if several else []), "Claimed", "Measured", "Verdict"]
    body = [_row(_cells(row, several)) for row in rows]
    if not rows:
        body = [rf"\multicolumn{{{len(head)}}}{{@{{}}l@{{}}}}{{No claim has been measured yet.}} \\"]
    return [
        r"\begin{table*}[tbp]",
        r"  \centering\small",
        f"  \\caption{{{caption}}}",
        f"  \\label{{tab:{part.slug}{'' if number == 1 else f'-{number}'}}}",
        r"  \vspace{1ex}",
        f"  \\begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        f"    {_row(head)}",
        r"    \midrule",
        "    " + "\n    \\addlinespace[2pt]\n    ".join(body),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table*}",
    ]


def _cells(row: Row, several: bool) -> list[str]:
    figure = row.verdict.figure
    return [
        rf"\raggedright {escape(row.claim.statement)}",
        *([escape(row.verdict.profile)] if several else []),
        rf"\raggedright {escape(row.claim.claimed.text)}",
        rf"\raggedright {escape(str(figure)) if figure else ''}",
        escape(row.verdict.outcome),
    ]


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def document(names: Iterable[str]) -> str:
    """A document that shows all tables, to look at them or as a start."""
    lines = [
        r"\documentclass[10pt]{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage{textcomp}",
        r"\usepackage{booktabs}",
        r"\usepackage[margin=2cm]{geometry}",
        r"\begin{document}",
        *(rf"\input{{{name}}}\clearpage" for name in names),
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"
