"""The idea model and the code model of a search, as language models that are talked to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from methods.decoding.plansearch import parsing, prompts
from methods.decoding.plansearch.chat import Chat, Conversation
from methods.decoding.plansearch.problems import CodeProblem
from methods.decoding.plansearch.search import CodeModel, Grounds, IdeaModel, Node

TRIES = (0.0, 0.2, 0.4)
"""Temperatures at which a list is asked for until it can be read."""


class LanguageIdeas(IdeaModel[CodeProblem]):
    """Observations and sketches in words.

    Args:
        chat: the idea model.
        temperature: of everything but the lists that are read.

    Attributes:
        lists, unparsed: lists of observations that were read, and that could not be.
    """

    def __init__(self, chat: Chat, temperature: float) -> None:
        self.chat, self.temperature = chat, temperature
        self.lists = self.unparsed = 0

    def observe(self, problems: Sequence[CodeProblem], given: Sequence[Node], count: int) -> list[list[str]]:
        """Ask, have them listed and sifted in the same conversation, and read what is printed; [] where that fails."""
        talks: list[Conversation] = [
            (prompts.derive(one, node, count),) for one, node in zip(problems, given, strict=True)
        ]
        for request in (prompts.LIST, prompts.FILTER, prompts.PYTHON_LIST):
            replies = self.chat.reply(talks, self.temperature)
            talks = [(*talk, reply, request) for talk, reply in zip(talks, replies, strict=True)]
        found: dict[int, list[str]] = {}
        for temperature in TRIES:
            left = [place for place in range(len(talks)) if place not in found]
            if not left:
                break
            for place, reply in zip(left, self.chat.reply([talks[p] for p in left], temperature), strict=True):
                if (read := parsing.strings(reply)) is not None:
                    found[place] = read
        self.lists += len(found)
        self.unparsed += len(talks) - len(found)
        return [found.get(place, []) for place in range(len(talks))]

    def sketch(self, problems: Sequence[CodeProblem], nodes: Sequence[Node]) -> list[str]:
        """A solution in words."""
        talks = [(prompts.sketch(one, node),) for one, node in zip(problems, nodes, strict=True)]
        return self.chat.reply(talks, self.temperature)

    def fix(self, problems: Sequence[CodeProblem], nodes: Sequence[Node], sketches: Sequence[str]) -> list[str]:
        """The sketch after criticism, in the conversation that it came from."""
        talks: list[Conversation] = [
            (prompts.sketch(one, node), sketch, prompts.CRITICISE)
            for one, node, sketch in zip(problems, nodes, sketches, strict=True)
        ]
        replies = self.chat.reply(talks, self.temperature)
        talks = [(*talk, reply, prompts.FIX) for talk, reply in zip(talks, replies, strict=True)]
        return self.chat.reply(talks, self.temperature)


class LanguageCoder(CodeModel[CodeProblem]):
    """Pseudocode and Python.

    Args:
        chat: the code model.
        temperature: of all replies.
        thinking: ask for a chain of thought before a program that rests on nothing.
    """

    def __init__(self, chat: Chat, temperature: float, thinking: bool = False) -> None:
        self.chat, self.temperature, self.thinking = chat, temperature, thinking

    def pseudocode(self, problems: Sequence[CodeProblem], grounds: Sequence[Grounds]) -> list[str]:
        """Pseudocode in whatever form the model likes."""
        talks = [(prompts.pseudocode(one, own),) for one, own in zip(problems, grounds, strict=True)]
        return self.chat.reply(talks, self.temperature)

    def code(self, problems: Sequence[CodeProblem], grounds: Sequence[Grounds]) -> list[str]:
        """The program in each reply; "" where there is none."""
        talks = [
            (prompts.think_and_code(one) if self.thinking and own == Grounds() else prompts.code(one, own),)
            for one, own in zip(problems, grounds, strict=True)
        ]
        return [parsing.program(reply) for reply in self.chat.reply(talks, self.temperature)]


def describe(chat: Chat, problems: Sequence[CodeProblem], programs: Sequence[str]) -> list[str]:
    """The idea of each program in words, by the likeliest tokens."""
    return chat.reply([(prompts.describe(p, c),) for p, c in zip(problems, programs, strict=True)], 0.0)


def same_ideas(chat: Chat, problems: Sequence[CodeProblem], pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether the two ideas of each pair are one."""
    talks = [(prompts.same_idea(one, *pair),) for one, pair in zip(problems, pairs, strict=True)]
    return [parsing.is_yes(reply) for reply in chat.reply(cast(list[Conversation], talks), 0.0)]
