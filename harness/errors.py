"""What can go wrong, by who has to act on it.

`RequestError`: the request was wrong (exit code 2). `Unavailable` and its kinds: something that the
machine lacks, so that a comparison is skipped with the reason. `BadOutput`: a method's output cannot
be scored, so that its record fails.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


class HarnessError(Exception):
    """Base of all errors that the harness raises on purpose; shown without a traceback."""


@dataclass
class RequestError(HarnessError):
    """A request, a suite or a paper file that cannot be carried out as written.

    Attributes:
        what: one sentence that says what is wrong and what was expected.
        file: the file at fault, when there is one.
        line: 1-based line in `file`.
        field: dotted path of the field, e.g. ``comparisons.growth.grid.length``.
        hint: what to do, e.g. the nearest right name.
    """

    what: str
    file: Path | None = None
    line: int | None = None
    field: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        where = ""
        if self.file is not None:
            where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        field = f"{self.field}: " if self.field else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{field}{self.what}{hint}"


class RequestErrors(HarnessError):
    """Several `RequestError`s found in one pass, so that a user mends them in one go."""

    def __init__(self, errors: Iterable[RequestError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))


class Unavailable(HarnessError):
    """Something a comparison needs is not on this machine; the comparison is skipped, not failed."""


class MissingData(Unavailable):
    """A data set is neither in ``HARNESS_DATA`` nor in the Hugging Face cache nor on the hub."""


class MissingPackage(Unavailable):
    """An optional package is not installed."""


class MissingModel(Unavailable):
    """Pretrained weights cannot be loaded."""


class NotMeasured(HarnessError):
    """The records that a quantity needs are not there; the message says which."""


class BadOutput(HarnessError):
    """A method returned something that its task cannot score; the record fails with this reason."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def nearest(name: str, names: Iterable[str]) -> str | None:
    """A hint that names what the user probably meant, or the few things there are."""
    candidates = sorted(set(names))
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if 0 < len(candidates) <= 12:
        return "there are: " + ", ".join(candidates)
    return None
