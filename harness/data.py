"""Named data sets: a local directory, the Hugging Face hub, or nowhere.

A task asks for a data set by name. It is looked for in the folder of that name under the directory that
the environment variable ``HARNESS_DATA`` names; where the task also names the same data on the Hugging
Face hub, there next. If it is nowhere, `MissingData` says in one line how to get it, and the comparison is
skipped. Other data is never used in its place.
"""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from harness.errors import MissingData, RequestError

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

VARIABLE = "HARNESS_DATA"


@dataclass(frozen=True)
class Hub:
    """Where on the Hugging Face hub the same data is.

    Attributes:
        id: repository, e.g. "ylecun/mnist".
        split: split to load.
        config: configuration of the data set, when it has several.
    """

    id: str
    split: str
    config: str | None = None


def root() -> Path | None:
    """The directory that ``HARNESS_DATA`` names, or None when it is not set."""
    value = os.environ.get(VARIABLE)
    return Path(value).expanduser() if value else None


def folder(name: str) -> Path:
    """The local folder of data set `name`.

    Raises:
        MissingData: it is not there.
    """
    if available(name):
        return Path(root() or "", name)
    raise MissingData(_how(name))


def _inside(name: str) -> str:
    """`name`, which a suite may have given. Raises `RequestError` where it leads out of its folder."""
    parts = PurePath(name).parts
    if not parts or ".." in parts or PurePath(name).is_absolute() or "\0" in name:
        raise RequestError(f"'{name}' is not the name of a data set or of a file in one")
    return name


def available(name: str) -> bool:
    """Whether data set `name` is in the local directory."""
    base = root()
    return base is not None and (base / _inside(name)).is_dir()


def file(name: str, filename: str) -> Path:
    """A file of the local data set `name`.

    Raises:
        MissingData: the data set or the file is not there.
    """
    path = folder(name) / _inside(filename)
    if not path.is_file():
        raise MissingData(f"data set '{name}' in {path.parent} has no file '{filename}'")
    return path


def text(name: str, filename: str) -> str:
    """A UTF-8 text file of data set `name`, decompressed when it ends in ``.gz``; line ends are kept."""
    path = file(name, filename)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as stream:
        return str(stream.read())


def arrays(name: str, filename: str) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file of data set `name`; pickled objects are refused."""
    import numpy as np

    with np.load(file(name, filename), allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


_FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


def table(name: str, filename: str, hub: Hub | None = None) -> Dataset:
    """A table of data set `name` as a `datasets.Dataset`.

    Args:
        name: folder under ``HARNESS_DATA``.
        filename: JSON lines, CSV, TSV or Parquet there, possibly ending in ``.gz``.
        hub: where the same table is on the Hugging Face hub, used when the folder is missing.

    Raises:
        MissingData: it is in neither place.
    """
    import datasets

    if hub is not None and not available(name):
        try:
            return datasets.load_dataset(hub.id, hub.config, split=hub.split)
        except (ConnectionError, OSError, ValueError) as error:
            raise MissingData(f"{_how(name)}; the hub's '{hub.id}' failed: {error}") from error
    path = file(name, filename)
    bare = path.with_suffix("") if path.suffix == ".gz" else path
    kind = _FORMATS.get(bare.suffix)
    if kind is None:
        raise MissingData(f"{path}: a table ends in one of {', '.join(_FORMATS)}, with or without .gz")
    options = {"delimiter": "\t"} if bare.suffix == ".tsv" else {}
    was_quiet = not datasets.utils.logging.is_progress_bar_enabled()
    datasets.utils.logging.disable_progress_bar()
    try:
        return datasets.load_dataset(kind, data_files=str(path), split="train", **options)
    finally:
        if not was_quiet:
            datasets.utils.logging.enable_progress_bar()


def _how(name: str) -> str:
    base = root()
    if base is None:
        return f"data set '{name}' is not here: set {VARIABLE} to a directory that has a folder '{name}'"
    return f"data set '{name}' is not here: put a folder '{name}' into {base} ({VARIABLE})"
