"""``python -m harness.gate.comment``: the comment on a pull request, from a result that is not trusted.

A workflow that may write comments runs this on what another workflow measured in the pull request's own code. The
JSON is checked against the model and every text in it escaped, so that the worst it can do is to state wrong figures.
Nothing but pydantic is needed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from harness.gate.markdown import MARK, markdown, prose
from harness.gate.model import GateResult

MOST_BYTES = 50 << 20
"""A larger file is not read: no gate writes one."""


def comment(file: Path, run: str) -> str:
    """The comment on the result in `file`, with a link to the run that measured it.

    Args:
        file: JSON of a `GateResult`; where there is none the comment says so.
        run: address of the run.
    """
    link = f"\n[The run]({run}) has all figures as an artefact.\n"
    if not file.is_file():
        return f"{MARK}\n### harness gate: no result\n\nThe gate did not get as far as measuring.\n{link}"
    if file.stat().st_size > MOST_BYTES:
        return f"{MARK}\n### harness gate: no result\n\nIts JSON is larger than any gate writes.\n{link}"
    try:
        result = GateResult.model_validate_json(file.read_bytes())
    except ValidationError as error:
        reason = prose(str(error.errors()[0]["msg"])[:200])
        return f"{MARK}\n### harness gate: no result\n\nIts JSON is not what this version writes: {reason}.\n{link}"
    return markdown(result) + link


def main(arguments: list[str] | None = None) -> int:
    """Entry of ``python -m harness.gate.comment``."""
    parser = argparse.ArgumentParser(prog="python -m harness.gate.comment", description=main.__doc__)
    parser.add_argument("file", type=Path, help="gate.json")
    parser.add_argument("--run", required=True, help="address of the run that measured")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args(arguments)
    options.out.write_text(comment(options.file, options.run), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
