"""What a worker may answer.

A method runs in the worker's process and can write what it likes on its connection, so that every answer is checked
before anything is done with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.errors import BadOutput
from harness.record import Status

_LARGEST = 1e300


@dataclass(frozen=True)
class Trouble:
    """What went wrong in a worker: the status and reason of the method's record, and where it happened."""

    status: Status
    reason: str
    traceback: str


def checked(verb: str, message: dict[str, Any]) -> tuple[dict[str, Any], Trouble | None]:
    """What a worker answered to `verb`, and what went wrong there if anything did.

    Raises:
        BadOutput: the message is not an answer to that.
    """
    if (told := message.get("error")) is not None:
        if not isinstance(told, dict):
            raise BadOutput("an error without its reason")
        status, reason, traceback = (told.get(part) for part in ("status", "reason", "traceback"))
        if not (isinstance(reason, str) and isinstance(traceback, str)):
            raise BadOutput("an error without its reason")
        if status not in ("failed", "timeout", "out-of-memory", "skipped"):
            raise BadOutput(f"an error of the kind {status!r:.40}")
        return {}, Trouble(status, reason[:2000], traceback[-16000:])
    ok = message.get("ok")
    fields = _ANSWERS.get(verb, {})
    if not isinstance(ok, dict) or any(name not in ok or not fits(ok[name]) for name, fits in fields.items()):
        raise BadOutput(f"an answer that is none to {verb}")
    return ok, None


def _is_number(value: Any) -> bool:
    # Compared rather than converted: JSON has whole numbers that no float can hold.
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _is_curve(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(axis), list) for axis in ("x", "y"))
        and all(type(v) is float or _is_number(v) for axis in ("x", "y") for v in value[axis])
        and len(value["x"]) == len(value["y"])
        and all(isinstance(value.get(label), str) for label in ("x_label", "y_label"))
    )


def _is_mapping(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


_ANSWERS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "load": {"amount": lambda value: value is None or _is_number(value)},
    "prepare": {"seconds": _is_number},
    "run": {
        "samples": lambda value: _are_numbers(value) and len(value) > 0 and min(value) >= 0,
        "cpu": lambda value: value is None or _is_number(value),
        "preempted": lambda value: value is None or type(value) is int,
        "clock": lambda value: isinstance(value, str),
    },
    "measure": {"metrics": _is_mapping(_is_number), "series": _is_mapping(_is_curve)},
}
