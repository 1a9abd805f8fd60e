"""Reads what Python source text declares, without running it.

For every class with a ``@task(...)`` or ``@method(...)`` decorator: its name, its parameters with their types,
defaults and docs, and its metrics. What is read from a file is kept in an index, so that an unchanged file is
parsed once.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import RequestError
from harness.method import Metric

_VERSION = 4
_NOT_LITERAL = "__not_literal__"


@dataclass(frozen=True)
class FieldSource:
    """A parameter: annotation and default as source text, the default's value, and its doc."""

    name: str
    annotation: str
    default: Any
    doc: str
    line: int


@dataclass(frozen=True)
class ClassSource:
    """A decorated class."""

    name: str
    module: str
    file: Path
    line: int
    doc: str
    declared_name: str
    arguments: dict[str, Any]
    metrics: tuple[Metric, ...]
    fields: dict[str, FieldSource]
    aliases: dict[str, str]

    @property
    def summary(self) -> str:
        """First sentence of the docstring."""
        return " ".join(self.doc.split("\n\n")[0].split())


@dataclass
class _Class:
    """A class as one file shows it, before its bases are looked up."""

    line: int
    doc: str
    bases: list[str]
    fields: list[dict[str, Any]]
    decorators: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class _File:
    """What one file declares and imports."""

    classes: dict[str, _Class]
    imports: dict[str, list[str]]
    modules: list[str]
    aliases: dict[str, str]
    metrics: dict[str, list[Any]]
    digest: str


class Sources:
    """The files read so far, with an index on disk."""

    def __init__(self) -> None:
        self._files: dict[Path, _File] = {}
        self._index_path = _index_path()
        self._index: dict[str, Any] = _read_index(self._index_path)
        self._changed = False

    def classes(
        self, file: Path, module: str, decorator: str, packages: dict[str, Path]
    ) -> Iterable[ClassSource]:
        """The classes of `file` that carry `decorator`, their inherited fields included.

        Raises:
            RequestError: the file is not Python, or a declaration is not literal.
        """
        parsed = self._file(file)
        for name, cls in parsed.classes.items():
            arguments = cls.decorators.get(decorator)
            if arguments is None:
                continue
            fields: dict[str, FieldSource] = {}
            aliases: dict[str, str] = {}
            self._inherit(file, name, packages, fields, aliases)
            metrics = tuple(
                Metric(**m) for m in self._metrics(arguments.get("metrics", []), file, packages, cls.line)
            )
            declared = arguments.get("")
            if not isinstance(declared, str):
                raise RequestError(
                    f"@{decorator} takes a name, a string, as its first argument", file=file, line=cls.line
                )
            rest = {k: v for k, v in arguments.items() if k not in ("", "metrics")}
            yield ClassSource(name, module, file, cls.line, cls.doc, declared, rest, metrics, fields, aliases)

    def digest(self, file: Path, packages: dict[str, Path]) -> str:
        """SHA-256 over `file` and every file that it imports, directly or not, from `packages`."""
        seen: dict[Path, str] = {}
        waiting = [file]
        while waiting:
            path = waiting.pop()
            if path in seen:
                continue
            parsed = self._file(path)
            seen[path] = parsed.digest
            for module in parsed.modules:
                target = _module_file(module, path, packages)
                if target is not None:
                    waiting.append(target)
        text = "\n".join(sorted(seen.values()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def save(self) -> None:
        """Write the index. A cache that cannot be written costs time and nothing else."""
        if not self._changed:
            return
        try:
            self._index_path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._index_path.parent)
            with os.fdopen(handle, "w") as stream:
                json.dump(self._index, stream)
            os.replace(name, self._index_path)
        except OSError:
            return
        self._changed = False

    def _file(self, path: Path) -> _File:
        if path in self._files:
            return self._files[path]
        status = path.stat()
        stamp = [status.st_mtime_ns, status.st_size]
        entry = self._index.get(str(path))
        if entry is None or entry["stamp"] != stamp:
            entry = {"stamp": stamp, "file": asdict(_parse(path))}
            self._index[str(path)] = entry
            self._changed = True
        raw = entry["file"]
        parsed = _File(**{**raw, "classes": {k: _Class(**v) for k, v in raw["classes"].items()}})
        self._files[path] = parsed
        return parsed

    def _inherit(
        self,
        file: Path,
        name: str,
        packages: dict[str, Path],
        fields: dict[str, FieldSource],
        aliases: dict[str, str],
    ) -> None:
        parsed = self._file(file)
        cls = parsed.classes.get(name)
        if cls is None:
            source = parsed.imports.get(name)
            target = _module_file(source[0], file, packages) if source else None
            if source is not None and target is not None:
                self._inherit(target, source[1], packages, fields, aliases)
            return
        for base in reversed(cls.bases):
            self._inherit(file, base, packages, fields, aliases)
        aliases.update(self._visible_aliases(parsed, file, packages))
        for each in cls.fields:
            if isinstance(each["default"], dict) and _NOT_LITERAL in each["default"]:
                raise RequestError(
                    f"the default of '{each['name']}' is not a literal, so the catalog cannot read it without"
                    " running the file",
                    file=file,
                    line=each["default"][_NOT_LITERAL],
                    hint="write the value out",
                )
            fields[each["name"]] = FieldSource(**each)

    def _visible_aliases(self, parsed: _File, file: Path, packages: dict[str, Path]) -> dict[str, str]:
        visible = dict(parsed.aliases)
        for name, (module, original) in parsed.imports.items():
            target = _module_file(module, file, packages)
            if target is not None and original in (theirs := self._file(target).aliases):
                visible[name] = theirs[original]
        return visible

    def _metrics(self, items: Any, file: Path, packages: dict[str, Path], line: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for item in items:
            if isinstance(item, dict):
                found.append(item)
                continue
            parsed = self._file(file)
            if item in parsed.metrics:
                found += self._metrics(parsed.metrics[item], file, packages, line)
                continue
            source = parsed.imports.get(item)
            target = _module_file(source[0], file, packages) if source else None
            if source is None or target is None:
                raise RequestError(
                    f"metrics: '{item}' is not a literal tuple of Metric(...) in this file or one it imports",
                    file=file,
                    line=line,
                )
            found += self._metrics([source[1]], target, packages, line)
        return found


def _parse(path: Path) -> _File:
    text = path.read_bytes()
    try:
        tree = ast.parse(text, filename=str(path))
    except SyntaxError as error:
        raise RequestError(f"is not Python: {error.msg}", file=path, line=error.lineno) from error
    parsed = _File({}, {}, [], {}, {}, hashlib.sha256(text).hexdigest())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            parsed.modules.append(module)
            for alias in node.names:
                parsed.imports[alias.asname or alias.name] = [module, alias.name]
                # `from package import name` may import a module of that name.
                parsed.modules.append(module + ("." if node.module else "") + alias.name)
        elif isinstance(node, ast.Import):
            parsed.modules += [alias.name for alias in node.names]
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            parsed.classes[node.name] = _class(node, path)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            value = node.value
            if not isinstance(target, ast.Name) or value is None:
                continue
            if _is_metrics(value):
                parsed.metrics[target.id] = _metric_items(value, path)
            elif isinstance(value, ast.Subscript | ast.BinOp | ast.Name):
                parsed.aliases[target.id] = ast.unparse(value)
    parsed.modules = sorted(set(parsed.modules))
    return parsed


def _class(node: ast.ClassDef, path: Path) -> _Class:
    fields: list[dict[str, Any]] = []
    for i, item in enumerate(node.body):
        if not (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value):
            continue
        annotation = ast.unparse(item.annotation)
        if annotation.startswith("ClassVar"):
            continue
        following = node.body[i + 1] if i + 1 < len(node.body) else None
        doc = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            doc = " ".join(str(following.value.value).split())
        fields.append(
            {
                "name": item.target.id,
                "annotation": annotation,
                "default": _default(item.value),
                "doc": doc,
                "line": item.lineno,
            }
        )
    cls = _Class(node.lineno, ast.get_docstring(node) or "", [_base_name(b) for b in node.bases], fields)
    for decorator in node.decorator_list:
        if not (isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name | ast.Attribute)):
            continue
        called = decorator.func.id if isinstance(decorator.func, ast.Name) else decorator.func.attr
        if called not in ("task", "method"):
            continue
        arguments: dict[str, Any] = {}
        if decorator.args:
            arguments[""] = _literal(decorator.args[0], path, f"the name in @{called}")
        for keyword in decorator.keywords:
            if keyword.arg == "metrics":
                arguments["metrics"] = _metric_items(keyword.value, path)
            elif keyword.arg is not None:
                arguments[keyword.arg] = _literal(keyword.value, path, f"'{keyword.arg}' in @{called}")
        cls.decorators[called] = arguments
    return cls


def _default(node: ast.expr) -> Any:
    """A literal default; any other is an error only once a task or method inherits the field."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return {_NOT_LITERAL: node.lineno}
    return list(value) if isinstance(value, tuple) else value


def _base_name(node: ast.expr) -> str:
    return ast.unparse(node.value if isinstance(node, ast.Subscript) else node)


def _literal(node: ast.expr, path: Path, what: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        raise RequestError(
            f"{what} is not a literal, so the catalog cannot read it without running the file",
            file=path,
            line=node.lineno,
            hint="write the value out",
        ) from None
    return list(value) if isinstance(value, tuple) else value


def _is_metrics(node: ast.expr) -> bool:
    """Whether a module-level constant is a Metric or a sequence of them."""
    if isinstance(node, ast.Tuple | ast.List):
        return bool(node.elts) and all(
            isinstance(e, ast.Starred | ast.Name) or _is_metrics(e) for e in node.elts
        )
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Metric"


def _metric_items(node: ast.expr, path: Path) -> list[Any]:
    """Metrics as argument dictionaries, and names of constants that stand for further ones."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _metric_items(node.left, path) + _metric_items(node.right, path)
    items: list[Any] = []
    for element in node.elts if isinstance(node, ast.Tuple | ast.List) else [node]:
        if isinstance(element, ast.Starred):
            items += _metric_items(element.value, path)
        elif isinstance(element, ast.Name):
            items.append(element.id)
        elif isinstance(element, ast.Call) and ast.unparse(element.func).split(".")[-1] == "Metric":
            names = ("name", "unit", "better", "doc", "deterministic")
            metric = {
                name: _literal(a, path, "an argument of Metric")
                for name, a in zip(names, element.args, strict=False)
            }
            for keyword in element.keywords:
                metric[str(keyword.arg)] = _literal(keyword.value, path, f"'{keyword.arg}' of Metric")
            items.append(metric)
        else:
            raise RequestError(
                "metrics are written as a list of Metric(...) with literal arguments",
                file=path,
                line=node.lineno,
            )
    return items


def _module_file(module: str, importer: Path, packages: dict[str, Path]) -> Path | None:
    """The file of `module` as `importer` names it, when it lies under one of `packages`."""
    if module.startswith("."):
        level = len(module) - len(module.lstrip("."))
        base = importer.parent
        for _ in range(level - 1):
            base = base.parent
        parts = module.lstrip(".").split(".") if module.lstrip(".") else []
    else:
        for package, path in packages.items():
            if module == package or module.startswith(package + "."):
                base, parts = path, module[len(package) :].lstrip(".").split(".")
                break
        else:
            return None
    target = base.joinpath(*[p for p in parts if p])
    for candidate in (target.with_suffix(".py"), target / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _index_path() -> Path:
    base = os.environ.get("HARNESS_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "harness"
    )
    return Path(base) / f"catalog-{_VERSION}.json"


def _read_index(path: Path) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            index = json.load(stream)
    except (OSError, ValueError):
        return {}
    return index if isinstance(index, dict) else {}
