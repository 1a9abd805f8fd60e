"""Verdicts and records as Markdown, CSV and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from harness.store import Store
from harness.verdict import OUTCOMES
from reports.collect import Content


def markdown(content: Content) -> str:
    """The scoreboard and the claims as Markdown, fit for a pull request or a README."""
    lines = [_line(["paper", *OUTCOMES]), _line(["---", *["--:"] * len(OUTCOMES)])]
    for counts in content.scoreboard():
        name = "**all**" if counts["paper"] == "all" else counts["paper"]
        lines.append(_line([name, *(str(counts[o] or "") for o in OUTCOMES)]))
    lines += ["", _line(["paper", "claim", "claimed", "measured", "verdict", "why"]), _line(["---"] * 6)]
    for part in content.parts:
        for row in part.rows:
            v = row.verdict
            lines.append(
                _line(
                    [
                        part.slug,
                        v.claim,
                        row.claim.claimed.text,
                        str(v.figure) if v.figure else "",
                        f"**{v.outcome}**" if v.outcome != "not measured" else v.outcome,
                        v.reason,
                    ]
                )
            )
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


def write(content: Content, store: Store, out: Path) -> list[Path]:
    """Write claims.md, verdicts.csv, verdicts.json and records.csv into `out`."""
    import pandas as pd

    verdicts = [v.model_dump(mode="json") for v in content.verdicts]
    flat = pd.DataFrame(
        [
            {
                **{k: v[k] for k in ("paper", "claim", "profile", "outcome", "reason", "rule")},
                **{
                    k: (v["figure"] or {}).get(k)
                    for k in ("quantity", "value", "low", "high", "unit", "seeds", "samples")
                },
                "claimed": row.claim.claimed.text,
                "claimed_value": row.claim.claimed.value,
            }
            for v, row in zip(verdicts, (r for p in content.parts for r in p.rows), strict=True)
        ]
    )
    paths = [out / name for name in ("claims.md", "verdicts.csv", "verdicts.json", "records.csv")]
    paths[0].write_text(markdown(content), encoding="utf-8")
    flat.to_csv(paths[1], index=False)
    paths[2].write_text(json.dumps(verdicts, indent=1, ensure_ascii=False), encoding="utf-8")
    store.frame(profiles=content.profiles).to_csv(paths[3], index=False)
    return paths
