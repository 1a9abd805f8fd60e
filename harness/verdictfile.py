"""The file of verdicts that other tools read: every verdict beside the figure that the paper claims."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from harness import __version__
from harness.paper import Claim
from harness.verdict import Verdict

FORMAT: Literal[1] = 1


class _Model(BaseModel):
    # A bound or an end of an interval may be infinite, for which JSON has no number.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class ClaimedFigure(_Model):
    """The paper's own figure, as `paper.yaml` gives it."""

    text: str = Field(description="The figure as a reader of the paper would say it.")
    value: float | None = Field(description="As a number, where it is one.")
    low: float | None = Field(description="Lower end, where the paper gives a range.")
    high: float | None = Field(description="Upper end, where the paper gives a range.")
    unit: str = Field(description="Unit of the numbers; empty for a pure number.")


class ClaimVerdict(Verdict):
    """A claim with its verdict on one profile."""

    model_config = ConfigDict(ser_json_inf_nan="null")

    family: str = Field(description="Family of the paper.")
    kind: str = Field(description="Kind of the claim: value, ratio, bound, parity, ordering or scaling.")
    statement: str = Field(description="What the paper claims.")
    source: str = Field(description="Where the paper says so.")
    claimed: ClaimedFigure
    claimed_setting: str = Field(description="The setting that the paper made the claim in, in words.")

    @classmethod
    def of(cls, family: str, claim: Claim, verdict: Verdict) -> ClaimVerdict:
        """Join a claim and its verdict."""
        return cls(
            **{name: getattr(verdict, name) for name in Verdict.model_fields},
            family=family,
            kind=claim.kind,
            statement=claim.statement,
            source=claim.source,
            claimed=ClaimedFigure(**claim.claimed.model_dump()),
            claimed_setting=claim.setting.text,
        )


class VerdictFile(_Model):
    """Verdicts for other tools. `format` changes when a reader of an earlier form would misread it."""

    format: Literal[1] = FORMAT
    harness: str = Field(default=__version__, description="Version of the harness that decided.")
    verdicts: list[ClaimVerdict]


def text(verdicts: Iterable[ClaimVerdict]) -> str:
    """The file's text: JSON that `docs/schemas/verdicts.schema.json` describes. Infinite ends are null."""
    return VerdictFile(verdicts=list(verdicts)).model_dump_json(indent=1) + "\n"
