"""Fuzzes every parser of what comes from elsewhere: ``python tests/fuzz/parsers.py [libFuzzer's options]``.

The first byte of an input chooses the parser, the rest is what it reads. Whatever the input, a parser returns or raises
an error made for whoever wrote it; anything else, a hang or exhausted memory is a finding. ``nox -s fuzz`` runs it for a
minute, and ``-- -max_total_time=3600`` for an hour. It starts from the suites and papers that are there.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["harness"]):
    from pydantic import ValidationError

    from harness import data, expression, parameters, suitefile, yamlfile
    from harness.answers import checked
    from harness.channel import Channel
    from harness.errors import BadOutput, RequestError, RequestErrors
    from harness.gate.markdown import markdown
    from harness.gate.model import GateResult
    from harness.paper import Paper
    from harness.record import Record
    from harness.sandbox import process
    from harness.suitefile import Suite

_HOME = Path(__file__).resolve().parents[2]
_PATH = Path("fuzzed.yaml")
_EXPRESSIONS = (
    'latency("a") / latency("b", length=4096)',
    'slope(best(accuracy("a", seeds="each"), "length"), "length")',
    'nearest(loss("a"), by=loss("b"), to=0.5, over="step") >= 1e-3',
    "1 + 2 * 3 ** -4",
)
_TYPES = ("PositiveInt", "Annotated[float, Ge(0), Lt(1)]", 'Literal["a", "b"] | None', "tuple[int, ...]")
_ANSWERS = (
    '{"ok": {"samples": [0.1], "cpu": 0.1, "preempted": 0, "clock": "host"}}\n',
    '{"error": {"status": "failed", "reason": "x", "traceback": ""}}\n',
)
_RECORD = (
    '{"key": "k", "suite": "s", "comparison": "c", "task": "t", "task_parameters": {"n": 1}, "method": "m", "label": "m",'
    ' "method_parameters": {}, "seed": 1000, "profile": "cpu", "source": "x", "status": "ok", "latency": {"samples":'
    ' [0.1, 0.2], "first": 0.1}, "metrics": {"a": 1.0}, "series": {"loss": {"x": [0, 1], "y": [1, 2]}}}'
)
_GATE = (
    '{"suite": "ci", "profile": "cpu", "base": {"name": "main"}, "head": {"name": "working tree"}, "started": "",'
    ' "seconds": 1.0, "findings": [{"comparison": "c", "task": "t", "method": "m", "label": "m", "metric": "latency",'
    ' "unit": "s", "base": 1.0, "head": 2.0, "ratio": 2.0, "low": 1.9, "high": 2.1, "threshold": 0.05, "change":'
    ' "regressed", "reason": "x"}], "machine": {"host": "h"}, "notes": ["n"]}'
)


def _suite(content: bytes) -> None:
    _yaml(Suite, content)


def _paper(content: bytes) -> None:
    _yaml(Paper, content)


def _yaml(model: type[Suite] | type[Paper], content: bytes) -> None:
    document = yamlfile.loads(content.decode("utf-8", errors="replace"), _PATH)
    found = yamlfile.validate(model, document)
    assert str(found.model_dump_json())


def _expression(content: bytes) -> None:
    parsed = expression.parse(content.decode("utf-8", errors="replace"))
    for reference in parsed.references:
        assert reference.metric.isidentifier()


def _size(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert 0 < suitefile.size_in_bytes(content.decode("utf-8", errors="replace")) < 1 << 63


def _type(content: bytes) -> None:
    parameters._adapter.__wrapped__(content.decode("utf-8", errors="replace"), (("Size", "int | Size"),))


def _record(content: bytes) -> None:
    record = Record.model_validate_json(content)
    record.value("latency"), record.value("latency_p99"), record.value("throughput")
    assert Record.model_validate_json(record.model_dump_json()) is not None


def _gate(content: bytes) -> None:
    found = GateResult.model_validate_json(content)
    assert markdown(found)


def _answer(content: bytes) -> None:
    """An answer in the protocol of workers, from its bytes to what the runner makes of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(content[:4096])
        theirs.shutdown(socket.SHUT_WR)
        channel = Channel(ours)
        while channel.fill():
            pass
        while (message := channel.take()) is not None:
            for verb in ("load", "prepare", "run", "measure", "peaks"):
                with contextlib.suppress(BadOutput):
                    checked(verb, message)


def _name(content: bytes) -> None:
    name = data._inside(content.decode("utf-8", errors="replace"))
    assert Path("/data", name).is_relative_to("/data")
    assert ".." not in Path(name).parts


def _generated(content: bytes) -> None:
    assert all(isinstance(word, str) for words in process._answers(content).values() for word in words)


PARSERS: tuple[Callable[[bytes], None], ...] = (
    _suite, _paper, _expression, _size, _type, _record, _gate, _answer, _name, _generated,
)  # fmt: skip
EXPECTED = (RequestError, RequestErrors, ValidationError, BadOutput)


def one_input(content: bytes) -> None:
    """Give one input to the parser that its first byte chooses."""
    if content:
        with contextlib.suppress(*EXPECTED):
            PARSERS[content[0] % len(PARSERS)](content[1:])


def seeds(folder: Path) -> None:
    """Write the inputs to start from."""
    texts: list[tuple[Callable[[bytes], None], str]] = [(_record, _RECORD)]
    texts.append((_gate, _GATE))
    texts += [(_expression, text) for text in _EXPRESSIONS]
    texts += [(_type, text) for text in _TYPES]
    texts += [(_answer, text) for text in _ANSWERS]
    texts += [(_size, "512MB"), (_name, "mnist/train.csv"), (_generated, "confined\ndone token passed 6162\n")]
    for file in sorted(_HOME.glob("suites/*.yaml")):
        texts.append((_suite, file.read_text(encoding="utf-8")[:1500]))
    for file in sorted(_HOME.glob("methods/*/*/paper.yaml"))[:8]:
        texts.append((_paper, file.read_text(encoding="utf-8")[:1500]))
    for number, (parser, text) in enumerate(texts):
        (folder / f"{number:03}").write_bytes(bytes([PARSERS.index(parser)]) + text.encode())


def words(file: Path) -> None:
    """Write the words that inputs are made of: fields of the schemas, functions, signs of the languages."""
    found = {
        *expression.FUNCTIONS,
        "&a",
        "*a",
        "!!",
        "---",
        "1e-3",
        "GiB",
        "NaN",
        "..",
        "[[",
        "{{",
        "**",
        "<<: ",
    }
    for model in (Suite, Paper, Record, GateResult):
        found |= yamlfile._field_names(model)
    file.write_text("".join(f'"{word}"\n' for word in sorted(found)))


def main() -> None:
    """Entry: libFuzzer takes the options and ends the process, with an error when it found something."""
    warnings.simplefilter("ignore")  # of Python's parser, about what it parses
    folder = tempfile.mkdtemp(prefix="harness-fuzz-")
    corpus = Path(folder, "corpus")
    corpus.mkdir()
    seeds(corpus)
    words(Path(folder, "words"))
    given = [a for a in sys.argv[1:] if not a.startswith("-")]
    options = [a for a in sys.argv[1:] if a.startswith("-")]
    limits = ["-max_len=2048", "-timeout=10", "-rss_limit_mb=2048", f"-dict={folder}/words"]
    atheris.Setup([sys.argv[0], *limits, *options, *given, str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
