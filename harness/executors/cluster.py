"""Cluster files: what comparisons of each profile ask a cluster for. Each executor has a schema of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from harness import yamlfile
from harness.errors import RequestError
from harness.suitefile import Size, size_in_bytes


class Model(BaseModel):
    """A part of a cluster file: no unknown fields, no conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Asks(Model):
    """What a comparison of a profile asks for, on every sort of cluster."""

    cpus: int | None = Field(default=None, ge=1, description="Processors (default 1).")
    gpus: int | None = Field(default=None, ge=0, description="GPUs (default 1 on a profile of a GPU, else 0).")
    memory: Size | None = Field(
        default=None, description="Host memory, e.g. 16GB; nine tenths of it are what a method may use."
    )

    def gpus_on(self, device: str) -> int:
        """How many GPUs a comparison on a torch device asks for."""
        return (1 if device == "cuda" else 0) if self.gpus is None else self.gpus

    @property
    def memory_bytes(self) -> int | None:
        """Bytes that are asked for."""
        return None if self.memory is None else size_in_bytes(self.memory)

    @property
    def method_memory(self) -> int | None:
        """Bytes that a method may use, unless its comparison says how many."""
        return None if self.memory_bytes is None else int(self.memory_bytes * 0.9)


Schema = TypeVar("Schema", bound=Model)


def read(schema: type[Schema], path: Path) -> Schema:
    """A cluster file. Raises `RequestError` or `RequestErrors` with lines."""
    found: Schema = yamlfile.validate(schema, yamlfile.load(path))
    return found


def missing(package: str, extra: str) -> RequestError:
    """The error of an executor whose package is not installed."""
    return RequestError(
        f"the executor '{extra}' needs the package {package}, which is not installed",
        hint=f"python -m pip install 'paper-harness[{extra}]'",
    )


def imported(package: str, extra: str) -> Any:
    """A package of an extra. Raises `RequestError` that says how to install it."""
    import importlib

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise missing(package, extra) from error
