"""YAML files with line numbers, read safely.

Reading is YAML 1.2 in the two points where PyYAML's 1.1 surprises people: ``1e-3`` is a number and
``on``/``yes`` are words. Duplicate keys, aliases, tags, control characters and files above a size or depth are refused,
so that a file from elsewhere can neither run code, exhaust memory, nor steer a terminal.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from harness.errors import RequestError, RequestErrors, nearest

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

# What a terminal obeys rather than shows, and what turns the order of the text after it.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}

Location = tuple[str | int, ...]


class _Loader(yaml.CSafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.inf$|^\.nan$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class Document:
    """The content of a YAML file and where each part of it stands.

    Attributes:
        path: the file.
        data: plain mappings, lists, strings, numbers, booleans and None.
        lines: 1-based line of every key and list item, by location.
    """

    path: Path
    data: Any
    lines: dict[Location, int]

    def line(self, location: Sequence[str | int]) -> int:
        """The line of the deepest part of `location` that is in the file."""
        for depth in range(len(location), -1, -1):
            line = self.lines.get(tuple(location[:depth]))
            if line is not None:
                return line
        return 1

    def error(self, what: str, location: Sequence[str | int] = (), hint: str | None = None) -> RequestError:
        """An error that points at `location`."""
        field = ".".join(map(str, location)) or None
        return RequestError(what, file=self.path, line=self.line(location), field=field, hint=hint)


def load(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        RequestError: it cannot be read, is not YAML, or is larger or deeper than a file of ours may be.
    """
    try:
        # A device or a pipe has no size and may have no end; opening one must not wait for a writer either.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise RequestError("is not a file", file=path)
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RequestError(f"has more than {MAX_BYTES} bytes; at most so many are read", file=path)
        text = content.decode("utf-8")
    except OSError as error:
        raise RequestError(f"cannot be read: {error.strerror or error}", file=path) from error
    except UnicodeDecodeError as error:
        raise RequestError(f"is not UTF-8 at byte {error.start}", file=path) from error
    return loads(text, path)


def loads(text: str, path: Path) -> Document:
    """Read YAML from a string; `path` names it in errors. Raises `RequestError` as `load` does."""
    lines: dict[Location, int] = {}
    loader = _Loader(text)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            line = event.start_mark.line + 1 if event.start_mark else None
            if isinstance(event, yaml.AliasEvent):
                raise RequestError("aliases (*name) are not read", file=path, line=line)
            # Here, since what makes nodes of the events recurses.
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise RequestError(f"is nested more than {MAX_DEPTH} deep", file=path, line=line)
        node = loader.get_single_node()
        data = _build(node, (), lines, loader, path) if node is not None else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RequestError(
            f"is not YAML: {problem}", file=path, line=mark.line + 1 if mark else None
        ) from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise RequestError(f"is not YAML: {error}", file=path) from error
    finally:
        loader.dispose()
    return Document(path, data, lines)


def _build(node: Any, at: Location, lines: dict[Location, int], loader: Any, path: Path) -> Any:
    lines.setdefault(at, node.start_mark.line + 1)
    if node.tag not in _TAGS:
        raise RequestError(f"the tag {node.tag} is not read", file=path, line=node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise RequestError("a key must be a word", file=path, line=line)
            key = key_node.value
            if _CONTROL.search(key):
                raise RequestError("a control character is not read", file=path, line=line)
            if key in mapping:
                raise RequestError("stands twice", file=path, line=line, field=".".join(map(str, (*at, key))))
            lines[(*at, key)] = line
            mapping[key] = _build(value_node, (*at, key), lines, loader, path)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*at, i), lines, loader, path) for i, item in enumerate(node.value)]
    if _CONTROL.search(node.value):
        raise RequestError("a control character is not read", file=path, line=node.start_mark.line + 1)
    return loader.construct_object(node)


def validate(model: type[BaseModel], document: Document) -> Any:
    """`document` as an instance of `model`.

    Raises:
        RequestErrors: one error per wrong field, each with its line and the nearest right name.
    """
    if not isinstance(document.data, dict):
        raise RequestErrors([document.error("the file is empty or not a mapping of fields")])
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise RequestErrors(_readable(error, model, document)) from error


def _readable(error: ValidationError, model: type[BaseModel], document: Document) -> list[RequestError]:
    names = _field_names(model)
    found: dict[tuple[Location, str], RequestError] = {}
    for detail in error.errors(include_url=False, include_context=True):
        location = _in_file(detail["loc"], document)
        what, hint = str(detail["msg"]), None
        match detail["type"]:
            case "extra_forbidden":
                what = f"unknown field '{location[-1] if location else ''}'"
                hint = nearest(str(location[-1]), names) if location else None
            case "missing":
                name = str(detail["loc"][-1])
                what = f"the field '{name}' is missing"
            case "value_error":
                what = what.removeprefix("Value error, ")
            case _:
                what = f"{what[0].lower()}{what[1:]}, not {detail['input']!r:.80}"
        found.setdefault((location, what), document.error(what, location, hint))
    return list(found.values())


def _in_file(location: Iterable[str | int], document: Document) -> Location:
    """A pydantic location without the names of union members, which are not in the file."""
    at: Location = ()
    for part in location:
        if (*at, part) in document.lines:
            at = (*at, part)
    return at


@lru_cache(maxsize=16)
def _field_names(model: type[BaseModel]) -> set[str]:
    schema = model.model_json_schema()
    names = set(schema.get("properties", {}))
    for definition in schema.get("$defs", {}).values():
        names |= set(definition.get("properties", {}))
    return names
