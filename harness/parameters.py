"""Checks the parameters that a suite or a claim names against what a task or method declares."""

from __future__ import annotations

import ast
import json
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import annotated_types
from pydantic import TypeAdapter, ValidationError

from harness import types as harness_types
from harness.catalog import Entry
from harness.errors import RequestError, nearest

_NAMES: dict[str, Any] = {
    **{t.__name__: t for t in (int, float, str, bool, tuple, list, dict)},
    **{n: getattr(typing, n) for n in ("Literal", "Annotated", "Optional", "Union", "Any")},
    **{n: getattr(annotated_types, n) for n in ("Ge", "Gt", "Le", "Lt", "MultipleOf", "Len")},
    **{n: v for n, v in vars(harness_types).items() if n[0].isupper() and n != "Annotated"},
}


def check(entry: Entry, name: str, value: Any) -> Any:
    """The value of parameter `name` of `entry`, converted to the declared type.

    Raises:
        RequestError: there is no such parameter, or the value has the wrong type or lies out of bounds; the
            caller adds file and line.
    """
    kind = type(entry).__name__.removesuffix("Entry").lower()
    if name not in entry.fields:
        raise RequestError(
            f"the {kind} '{entry.name}' has no parameter '{name}'", hint=nearest(name, entry.fields)
        )
    field = entry.fields[name]
    adapter = _adapter(field.annotation, tuple(sorted(entry.source.aliases.items())))
    try:
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        reasons = "; ".join(dict.fromkeys(_lower(e["msg"]) for e in error.errors(include_url=False)))
        raise RequestError(
            f"parameter '{name}' of the {kind} '{entry.name}' is {_words(field.annotation)}: {reasons},"
            f" not {value!r}"
        ) from None
    return value


def complete(entry: Entry, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of `entry`: the given ones over the defaults."""
    return {name: given.get(name, field.default) for name, field in entry.fields.items()}


@lru_cache(maxsize=1024)
def _adapter(annotation: str, aliases: tuple[tuple[str, str], ...]) -> TypeAdapter[Any]:
    kind = _evaluate(annotation, dict(aliases))
    try:
        return TypeAdapter(kind)
    except Exception as error:  # pydantic's own errors, and those of what the annotation is made of
        raise RequestError(
            f"the type '{annotation:.200}' is not one: {str(error).partition(chr(10))[0]}"
        ) from error


def _evaluate(annotation: str, aliases: Mapping[str, str], depth: int = 0) -> Any:
    """The type that an annotation's text names, from the few names a parameter may use."""
    try:
        tree = ast.parse(annotation, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RequestError(f"the type '{annotation:.200}' is not one: {error}") from None
    namespace: dict[str, Any] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) if name in namespace:
                pass
            case ast.Name(id=name) if name in _NAMES:
                namespace[name] = _NAMES[name]
            case ast.Name(id=name) if name in aliases and depth < 8:
                namespace[name] = _evaluate(aliases[name], aliases, depth + 1)
            case ast.Expression() | ast.Subscript() | ast.Constant() | ast.Tuple() | ast.List():
                pass
            case ast.BinOp(op=ast.BitOr()) | ast.BitOr() | ast.Load() | ast.UnaryOp() | ast.USub():
                pass
            case ast.Call(func=ast.Name(id=name)) if name in _NAMES:
                pass
            case _:
                raise RequestError(
                    f"the type '{annotation}' is not one that a parameter may have",
                    hint=f"use {', '.join(sorted(_NAMES))}",
                )
    try:
        return eval(compile(tree, "<annotation>", "eval"), {"__builtins__": {}}, namespace)  # noqa: S307
    except Exception as error:  # what typing makes of a number where it expects a type is anything
        raise RequestError(f"the type '{annotation:.200}' is not one: {error}") from error


def _words(annotation: str) -> str:
    return f"of type {annotation}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
