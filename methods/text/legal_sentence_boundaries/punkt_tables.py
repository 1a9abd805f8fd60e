"""What Punkt knows: abbreviations, collocations, sentence starters and orthography, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from harness.errors import MissingPackage

# How a type has been seen: at the beginning of a sentence, inside one, or where it is not known;
# with an upper-case or a lower-case first letter.
BEGIN_UPPER, INSIDE_UPPER, UNKNOWN_UPPER = 2, 4, 8
BEGIN_LOWER, INSIDE_LOWER, UNKNOWN_LOWER = 16, 32, 64
ANY_UPPER = BEGIN_UPPER | INSIDE_UPPER | UNKNOWN_UPPER
ANY_LOWER = BEGIN_LOWER | INSIDE_LOWER | UNKNOWN_LOWER


@dataclass
class Tables:
    """The parameters of Punkt. All types are lower-case and without their final period.

    Attributes:
        abbreviations: types that are abbreviations.
        collocations: pairs (type before the period, type after it) that belong together.
        starters: types that often begin a sentence.
        orthography: the flags above for each type that was seen.
    """

    abbreviations: set[str] = field(default_factory=set)
    collocations: set[tuple[str, str]] = field(default_factory=set)
    starters: set[str] = field(default_factory=set)
    orthography: dict[str, int] = field(default_factory=dict)

    def abbreviates(self, bare: str) -> bool:
        """Whether a type is a known abbreviation, as it is or without its internal periods ("u.s.c" as "usc")."""
        return bare in self.abbreviations or ("." in bare and bare.replace(".", "") in self.abbreviations)

    def save(self, path: Path) -> None:
        """Write the tables as JSON."""
        content = {
            "abbreviations": sorted(self.abbreviations),
            "collocations": sorted(self.collocations),
            "starters": sorted(self.starters),
            "orthography": self.orthography,
        }
        path.write_text(json.dumps(content))

    @staticmethod
    def load(path: Path) -> Tables:
        """The tables that `save` wrote."""
        content = json.loads(path.read_text())
        return Tables(
            abbreviations=set(content["abbreviations"]),
            collocations={(first, second) for first, second in content["collocations"]},
            starters=set(content["starters"]),
            orthography=content["orthography"],
        )

    def add_abbreviations(self, written: Iterable[str]) -> None:
        """Add abbreviations as they are written ("F. Supp." has to come as "F." and "Supp.")."""
        self.abbreviations.update(word.lower().removesuffix(".") for word in written)


def published_tables() -> Tables:
    """The tables of the model that the installed nupunkt carries.

    Raises:
        MissingPackage: nupunkt is not installed.
    """
    try:
        from nupunkt import load_default_model
    except ImportError as error:
        raise MissingPackage(
            "the published tables are in the package nupunkt: pip install 'nupunkt<0.6'"
        ) from error
    parameters = load_default_model()._params
    return Tables(
        abbreviations=set(parameters.abbrev_types),
        collocations=set(parameters.collocations),
        starters=set(parameters.sent_starters),
        orthography=dict(parameters.ortho_context),
    )


def legal_abbreviations() -> list[str]:
    """The legal abbreviations, each with its period, that the installed charboundary carries.

    Raises:
        MissingPackage: charboundary is not installed.
    """
    # The package is found but not imported: its import costs a second and we only want a file.
    specification = find_spec("charboundary")
    if specification is None or specification.origin is None:
        raise MissingPackage(
            "the list of legal abbreviations is in the package charboundary: pip install charboundary"
        )
    path = Path(specification.origin).parent / "resources" / "legal_abbreviations.json"
    words: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return words
