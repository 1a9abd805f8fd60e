"""JSON Schemas of ``paper.yaml`` and of suites, generated from the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.paper import Paper
from harness.suite import Suite

FILES: dict[str, type[Any]] = {"paper.schema.json": Paper, "suite.schema.json": Suite}


def text(name: str) -> str:
    """The text of one schema file."""
    schema = FILES[name].model_json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path) -> list[Path]:
    """Write both schemas into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in FILES:
        path = folder / name
        path.write_text(text(name), encoding="utf-8")
        paths.append(path)
    return paths
