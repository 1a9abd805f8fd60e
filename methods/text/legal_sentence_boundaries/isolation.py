"""Whether a package works in an interpreter that has nothing but itself and the standard library."""

from __future__ import annotations

import importlib.metadata as metadata
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from harness.errors import MissingPackage

CALLS = {
    "nupunkt": "import nupunkt; print(len(nupunkt.sent_tokenize(text)))",
    "charboundary": "import charboundary; print(len(charboundary.get_small_segmenter().segment_to_sentences(text)))",
    "nltk": "from nltk.tokenize.punkt import PunktSentenceTokenizer as P; print(len(P().tokenize(text)))",
    "pysbd": "import pysbd; print(len(pysbd.Segmenter(language='en').segment(text)))",
}
"""For each package, how it counts the sentences of ``text``."""


def requirements(package: str) -> list[str]:
    """The distributions that `package` requires by its metadata, extras aside.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        required = metadata.requires(package) or []
    except metadata.PackageNotFoundError as error:
        raise MissingPackage(f"{package} is not installed: pip install {package}") from error
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required if "extra ==" not in line]


def closure(packages: Iterable[str]) -> set[str]:
    """`packages` and all that they require, as far as it is installed."""
    found: set[str] = set()
    waiting = list(packages)
    while waiting:
        name = waiting.pop()
        if name not in found:
            try:
                waiting.extend(requirements(name))
            except MissingPackage:
                continue  # required on other platforms only
            found.add(name)
    return found


def link(packages: Iterable[str], folder: Path) -> None:
    """Links in `folder` to the modules of the installed distributions `packages` and to nothing else."""
    for name in packages:
        distribution = metadata.distribution(name)
        parts = {Path(file).parts[0] for file in distribution.files or () if Path(file).parts[0] != ".."}
        for part in parts - {"__pycache__"}:
            target = Path(str(distribution.locate_file(part)))
            if target.exists() and not (folder / part).exists():
                (folder / part).symlink_to(target)


def count_sentences(package: str, folder: Path, text: str, limit: float) -> int | None:
    """How many sentences `package` finds in `text` in a fresh interpreter that sees `folder` alone.

    Args:
        package: a key of `CALLS`.
        folder: where its modules are.
        text: what to split.
        limit: seconds after which the interpreter is ended.

    Returns:
        The count, or None where the interpreter failed.
    """
    script = f"import sys; sys.path.append(sys.argv[1]); text = sys.argv[2]; {CALLS[package]}"
    # -I ignores the environment and the user's packages, -S the installation's.
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", script, str(folder), text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    return int(done.stdout.split()[-1]) if done.returncode == 0 else None
