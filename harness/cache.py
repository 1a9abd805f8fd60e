"""Prepared artefacts (trained base models, indexes), kept by content.

The key of an artefact is everything that made it: a recipe as plain data, and the name of what it makes.
Two processes that need the same artefact make it once; a file is complete or absent, never half written.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def default_directory() -> Path:
    """``HARNESS_CACHE``, or the user's cache directory."""
    if value := os.environ.get("HARNESS_CACHE"):
        return Path(value).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("harness"))


def key(kind: str, recipe: Mapping[str, Any]) -> str:
    """The name of the artefact that `recipe` makes: a kind and 16 hexadecimal digits."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def artefact(
    kind: str,
    recipe: Mapping[str, Any],
    make: Callable[[Path], None],
    directory: Path | None = None,
) -> Path:
    """The file of an artefact, made on first use.

    Args:
        kind: short name of what it is, part of the file's name.
        recipe: plain data (JSON) that names everything the artefact depends on, including a digest of
            the text or arrays it was made from.
        make: writes the artefact to the path it is given. Tensors are saved with ``safetensors`` or
            ``torch.save`` of a state dict, and loaded with ``weights_only=True``; never a pickle.
        directory: where artefacts are kept; the default is `default_directory`.

    Returns:
        A path that exists and is complete.
    """
    base = directory or default_directory()
    base.mkdir(parents=True, exist_ok=True)
    path = base / key(kind, recipe)
    if path.exists():
        return path
    with open(base / f"{path.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return path
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=base)
        os.close(handle)
        unfinished = Path(name)
        try:
            make(unfinished)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    (base / f"{path.name}.json").write_text(json.dumps(recipe, indent=1, sort_keys=True))
    return path
