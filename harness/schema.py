"""JSON Schemas of ``paper.yaml``, suites and cluster files, of verdicts and of a gate, generated from the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from harness.executors.ray import RayFile
from harness.executors.slurm import SlurmFile
from harness.gate.model import GateResult
from harness.paper import Paper
from harness.suitefile import Suite
from harness.verdictfile import VerdictFile

FILES: dict[str, type[Any]] = {
    "paper.schema.json": Paper,
    "suite.schema.json": Suite,
    "verdicts.schema.json": VerdictFile,
    "gate.schema.json": GateResult,
    "ray.schema.json": RayFile,
    "slurm.schema.json": SlurmFile,
}
_WRITTEN_BY_US = {VerdictFile, GateResult}


def text(name: str) -> str:
    """The text of one schema file."""
    model = FILES[name]
    # What we write has every field; what people write may leave out those with a default.
    mode: Literal["serialization", "validation"] = "serialization" if model in _WRITTEN_BY_US else "validation"
    schema = model.model_json_schema(mode=mode)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path) -> list[Path]:
    """Write all schemas into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in FILES:
        path = folder / name
        path.write_text(text(name), encoding="utf-8")
        paths.append(path)
    return paths
