"""EBNF, the two recognisers against one another, and both against other parsers."""

from __future__ import annotations

import json
import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.decoding.ebnf import call_expressions, scannerless
from methods.decoding.grammars import (
    BINARY,
    ContextFree,
    FiniteLanguage,
    binary_language,
    grammar_file,
    spelled_language,
)
from methods.decoding.language_models import BITS, Vocabulary
from tests.conftest import needs_data

pytest.importorskip("llguidance")
lark = pytest.importorskip("lark")

BYTES = Vocabulary((*[bytes([code]) for code in range(128)], b""), eos=128)


def admitted_text(grammar: ContextFree, text: str) -> set[str]:
    """The bytes that may follow a text; "END" for the end of sequence."""
    following = grammar.admitted(list(text.encode()))
    return {"END" if token == 128 else chr(token) for token in following.tolist()}


def accepts(grammar: ContextFree, text: str) -> bool:
    return grammar.accepts([*text.encode(), 128])


@pytest.mark.parametrize("name", BINARY)
def test_binary_languages_by_their_definition(name: str) -> None:
    strings = binary_language(name)
    length = len(strings[0])
    free = "1" if name != "binary_len_5_1" else "0"
    other = "0" if free == "1" else "1"
    expected = {s for s in map("".join, product("01", repeat=length)) if s[0] == free} | {other * length}
    assert set(strings) == expected
    assert len(strings) == len(set(strings)) == (5 if length == 3 else 17)


def test_unknown_binary_language() -> None:
    with pytest.raises(ValueError, match="binary_len_3"):
        binary_language("binary_len_4")


@needs_data("gad-grammars")
@pytest.mark.parametrize("name", BINARY)
def test_the_files_hold_the_same_languages(name: str) -> None:
    parsed = ContextFree(grammar_file(name), BITS)
    assert spelled_language(parsed) == {text.encode() for text in binary_language(name)}


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_both_recognisers_admit_the_same_tokens_at_every_prefix(data: st.DataObject) -> None:
    texts = data.draw(st.sets(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=6))
    pieces = data.draw(st.sets(st.text("ab", min_size=2, max_size=3), max_size=5))
    vocabulary = Vocabulary((b"a", b"b", b"", *[piece.encode() for piece in sorted(pieces)]), eos=2)
    ebnf = "root ::= " + " | ".join(f'"{text}"' for text in sorted(texts))
    finite, parsed = FiniteLanguage(texts, vocabulary), ContextFree(ebnf, vocabulary)
    pending: list[tuple[int, ...]] = [()]
    visited = 0
    while pending:
        prefix = pending.pop()
        visited += 1
        expected = finite.admitted(prefix)
        assert np.array_equal(expected, parsed.admitted(prefix)), (prefix, texts, pieces)
        pending += [(*prefix, token) for token in expected.tolist() if token != 2]
    assert visited >= len(texts)
    assert spelled_language(finite) == {text.encode() for text in texts}


def test_nothing_follows_what_is_not_a_prefix_or_has_ended() -> None:
    for grammar in (FiniteLanguage(["01"], BITS), ContextFree('root ::= "01"', BITS)):
        assert grammar.admitted([1]).size == 0
        assert grammar.admitted([0, 1, 2]).size == 0
        assert grammar.admitted([0, 1]).tolist() == [2]
        assert grammar.admitted([]).tolist() == [0]
        assert grammar.accepts([0, 1, 2])
        assert not grammar.accepts([0, 1])
        assert not grammar.accepts([])
        assert not grammar.accepts([0, 2])
        assert not grammar.accepts([0, 1, 2, 2])


def test_rules_groups_suffixes_classes_escapes_and_comments() -> None:
    grammar = ContextFree(
        """# a comment with "quotes" ::= and more
        root ::= item ("," item)* end?   # trailing
        item ::= [a-c_] | "\\"" [^"x-z]+ "\\"" |
                 "n" [-+]? [0-9]
        end ::= ";" | "\\n"
        """,
        BYTES,
    )
    for text in ("a", "_,b;", '"d e"', "n-3,n4\n", '"\\n"'):
        assert accepts(grammar, text), text
    for text in ("", "d", "a,", '"x"', '""', "n-", "a;;", "n--3"):
        assert not accepts(grammar, text), text
    assert admitted_text(grammar, "n") == {*"-+0123456789"}
    assert admitted_text(grammar, "a") == {",", ";", "\n", "END"}


@pytest.mark.parametrize(
    ("ebnf", "match"),
    [
        ("start ::= 'a'", "no EBNF"),
        ('other ::= "a"', "no rule 'root'"),
        ('root ::= missing "a"', "no rule 'missing'"),
        ('root ::= "a"\nroot ::= "b"', "two rules"),
    ],
)
def test_bad_grammars_are_refused(ebnf: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        scannerless(ebnf)


def reference(ebnf: str) -> object:
    """The same rules in another parser: Lark's own Earley."""
    return lark.Lark(scannerless(ebnf), parser="earley", lexer="dynamic", ambiguity="resolve")


def parses(parser: object, text: str) -> bool:
    try:
        parser.parse(text)  # type: ignore[attr-defined]
    except lark.exceptions.LarkError:
        return False
    return True


EXAMPLES = {
    "arithmetic": (
        ["a+b=c\n", "x = 3\n", "(a +2)*y= z1 \n\n", "1=2\na=b\n"],
        ["", "a=b", "a+=b\n", "=a\n", "A=b\n", "a=b+c\n"],
    ),
    "json": (
        ['{"a":1}', '{ "a" : [1 , "b", {}] , "c": -0.5e+3 }', "{}", '{"t":true,"n":null}'],
        ["", "[]", '{"a":1,}', '{"a b":1}', '{"a":tru}', '{"a":01}'],
    ),
    "c": (
        ["", "int f(){return  x;}", "int main(float x){while(a<b){x = y+1;}}", "int f(){//c\n}"],
        ["int f()", "long f(){}", "int f(){return x}", "int f(){x=1}"],
    ),
    "chess": (
        ["1. e4 e5\n2. Nf3 Nc6\n", "1. e4 e5\n10. O-O O-O-O\n", "1. exd5 Qxd5+\n2. e8=Q# Ra1\n"],
        ["1. e4 e5\n", "1. e4 e5 2. Nf3 Nc6\n", "1. i4 e5\n2. Nf3 Nc6\n"],
    ),
}


@needs_data("gad-grammars")
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_general_grammars_on_examples_and_on_damaged_ones(name: str) -> None:
    ebnf = grammar_file(name)
    grammar, other = ContextFree(ebnf, BYTES), reference(ebnf)
    inside, outside = EXAMPLES[name]
    for text in inside:
        assert accepts(grammar, text), text
    for text in outside:
        assert not accepts(grammar, text), text
    generator = np.random.default_rng(0)
    damaged = set(inside)
    for text in inside * 8:
        place = int(generator.integers(len(text) + 1))
        damaged.add(text[:place] + text[place + 1 :])
        damaged.add(text[:place] + str(generator.choice(list('a1 "(){};\n'))) + text[place:])
    verdicts = {text: accepts(grammar, text) for text in damaged}
    assert set(verdicts.values()) == {True, False}
    assert verdicts == {text: parses(other, text) for text in damaged}


@needs_data("gad-grammars")
def test_walks_through_the_json_grammar_are_json() -> None:
    grammar, generator = ContextFree(grammar_file("json"), BYTES), np.random.default_rng(0)
    whole = 0
    for _ in range(60):
        tokens: list[int] = []
        while len(tokens) < 40:
            following = grammar.admitted(tokens)
            if 128 in following:
                json.loads(BYTES.spell(tokens))
                whole += 1
                break
            # Closing brackets are preferred, or hardly a walk would end.
            closing = [token for token in following.tolist() if chr(token) in ']}":1']
            tokens.append(int(generator.choice(closing if closing and generator.random() < 0.7 else following)))
    assert whole > 20


def test_call_expressions_against_a_regular_expression() -> None:
    names = ["f", "fo", "foo", "bar", "b_1"]
    grammar = ContextFree(call_expressions(names, arguments=2, depth=2), BYTES)
    name = "(?:" + "|".join(sorted(names, key=len, reverse=True)) + ")"
    flat = rf"{name}\((?:{name}(?:, ?{name})?)?\)"
    argument = rf"(?:{flat}|{name})"
    nested = re.compile(rf"{name}\((?:{argument}(?:, ?{argument})?)?\)")
    generator = np.random.default_rng(1)
    texts = [
        "f()",
        "foo(bar(f,fo), b_1)",
        "fo(f(f))",
        "f(f(f()))",
        "f(a)",
        "f(f,f,f)",
        "f(f,  f)",
        "(f)",
        "foo",
    ]
    seeds = [text for text in texts if nested.fullmatch(text)]
    for text in seeds * 15:
        place = int(generator.integers(len(text)))
        texts.append(text[:place] + str(generator.choice(list("fob(), ab_1r"))) + text[place + 1 :])
    verdicts = {text: accepts(grammar, text) for text in texts}
    assert verdicts == {text: nested.fullmatch(text) is not None for text in texts}
    assert sum(verdicts.values()) >= 3


@pytest.mark.parametrize(("arguments", "depth", "count"), [(0, 1, 2), (1, 1, 2 + 4), (1, 2, 2 + 4 + 12)])
def test_number_of_call_expressions(arguments: int, depth: int, count: int) -> None:
    # Two names; a call of depth two has no argument, a name, or one of the six calls of depth one.
    grammar = ContextFree(call_expressions(["f", "g"], arguments, depth), BYTES)
    assert len(spelled_language(grammar)) == count


def test_call_expressions_need_a_name() -> None:
    with pytest.raises(ValueError, match="names"):
        call_expressions([], 1, 1)
