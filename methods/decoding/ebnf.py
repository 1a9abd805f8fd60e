"""Grammars in the EBNF notation of llama.cpp and transformers-CFG, rewritten for a scannerless parser.

The notation says ``name ::= alternatives`` with strings, character classes, groups and the suffixes ``* + ?``.
In the rewritten grammar (Lark's syntax, which `lark` and `llguidance` read) every terminal is a single
character. No lexer then decides where a token of the grammar ends, so the language is exactly that of the rules, even
where a greedy lexer would swallow a newline that a later rule needs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

_NOTATION = r"""
start: rule+
rule: HEAD alternatives
alternatives: sequence ("|" sequence)*
sequence: repeated*
repeated: _atom SUFFIX?
_atom: reference | string | charset | "(" alternatives ")"
reference: NAME
string: STRING
charset: CHARSET
HEAD: /[a-zA-Z][a-zA-Z0-9_-]*\s*::=/
NAME: /[a-zA-Z][a-zA-Z0-9_-]*(?![a-zA-Z0-9_-]|\s*::=)/
STRING: /"(?:[^"\\\n]|\\.)*"/
CHARSET: /\[(?:[^\]\\\n]|\\.)+\]/
SUFFIX: /[*+?]/
%import common.WS
%ignore WS
%ignore /#[^\n]*/
"""

_ESCAPE = re.compile(r"\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}|\\.|[^\\]", re.DOTALL)
_PLAIN_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@cache
def _reader() -> Any:
    from lark import Lark

    # Rules follow one another without a separator: a name before "::=" is a terminal of its own.
    return Lark(_NOTATION, parser="lalr")


def scannerless(ebnf: str, start: str = "root") -> str:
    """An EBNF grammar as a Lark grammar whose terminals are single characters and whose start is ``start``.

    Raises:
        ValueError: it cannot be read, or a rule is missing.
    """
    from lark.exceptions import LarkError

    try:
        tree = _reader().parse(ebnf)
    except LarkError as error:
        raise ValueError(f"this is no EBNF grammar: {error}") from error
    bodies: dict[str, Any] = {}
    for rule in tree.children:
        name = str(rule.children[0]).removesuffix("::=").rstrip()
        if name in bodies:
            raise ValueError(f"the grammar has two rules '{name}'")
        bodies[name] = rule.children[1]
    if start not in bodies:
        raise ValueError(f"the grammar has no rule '{start}'")
    names = {name: "start" if name == start else f"r{place}" for place, name in enumerate(bodies)}
    return "".join(f"{names[name]}: {_alternatives(body, names)}\n" for name, body in bodies.items())


def _alternatives(tree: Any, names: dict[str, str]) -> str:
    return " | ".join(
        " ".join(_repeated(item, names) for item in sequence.children) for sequence in tree.children
    )


def _repeated(tree: Any, names: dict[str, str]) -> str:
    atom, *suffix = tree.children
    repeat = str(suffix[0]) if suffix else ""
    if atom.data == "alternatives":
        return f"({_alternatives(atom, names)}){repeat}"
    text = str(atom.children[0])
    if atom.data == "reference":
        if text not in names:
            raise ValueError(f"the grammar has no rule '{text}'")
        return names[text] + repeat
    if atom.data == "charset":
        return _charset(text[1:-1]) + repeat
    characters = [_character(part) for part in _ESCAPE.findall(text[1:-1])]
    literal = " ".join(f"/{_regex(character)}/" for character in characters)
    return f"({literal}){repeat}" if repeat or not characters else literal


def _character(part: str) -> str:
    """The character that a part of a string or class stands for."""
    if len(part) == 1:
        return part
    if part[1] in "xuU":
        return chr(int(part[2:], 16))
    return _PLAIN_ESCAPES.get(part[1], part[1])


def _charset(inside: str) -> str:
    """A character class as a regular expression; a hyphen at its edge stands for itself."""
    negated = inside.startswith("^")
    parts = _ESCAPE.findall(inside[1:] if negated else inside)
    pieces = []
    place = 0
    while place < len(parts):
        if place + 2 < len(parts) and parts[place + 1] == "-":
            pieces.append(f"{_regex(_character(parts[place]))}-{_regex(_character(parts[place + 2]))}")
            place += 3
        else:
            pieces.append(_regex(_character(parts[place])))
            place += 1
    return f"/[{'^' if negated else ''}{''.join(pieces)}]/"


_SPECIAL = frozenset(r"\.+*?()|[]{}^$-/#&~")
_NAMED = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}


def _regex(character: str) -> str:
    """One character in a regular expression between slashes, inside or outside of a class."""
    if character in _SPECIAL:
        return "\\" + character
    if character.isprintable():
        return character
    return _NAMED.get(character, f"\\x{ord(character):02x}")


def call_expressions(names: Sequence[str], arguments: int = 3, depth: int = 2) -> str:
    """EBNF of calls ``f(x, g(y))`` with the given names.

    Args:
        names: identifiers, for functions and for arguments.
        arguments: a call has at most so many, with a comma and at most one blank between them.
        depth: how deep calls nest; 1 allows names as arguments only.
    """
    if not names or arguments < 0 or depth < 1:
        raise ValueError("a call needs names, a number of arguments and a depth of at least one")
    rules = ["name ::= " + _factored(sorted(set(names)))]
    for level in range(1, depth + 1):
        rules.append(f"argument{level} ::= name" + (f" | call{level - 1}" if level > 1 else ""))
        listed = ""
        for _ in range(arguments):
            listed = f'argument{level} ("," " "? {listed})?' if listed else f"argument{level}"
        rules.append(f'call{level} ::= name "(" ({listed})? ")"' if listed else f'call{level} ::= name "(" ")"')
    return "\n".join([f"root ::= call{depth}", *rules]) + "\n"


def _factored(names: Sequence[str]) -> str:
    """Alternatives with common beginnings written once, so that a parser follows one of them and not each name."""
    heads: dict[str, list[str]] = {}
    for name in names:
        heads.setdefault(name[:1], []).append(name[1:])
    parts = []
    for head, tails in heads.items():
        longer = [tail for tail in tails if tail]
        if not longer:
            parts.append(f'"{head}"')
        elif len(longer) == 1 and "" not in tails:
            parts.append(f'"{head}{longer[0]}"')
        else:
            parts.append(f'"{head}" ({_factored(longer)}){"?" if "" in tails else ""}')
    return " | ".join(parts)
