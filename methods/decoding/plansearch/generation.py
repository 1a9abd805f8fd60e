"""What the searches over Python problems share: the models, the run, and how different the ideas are."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np

from harness import sandbox
from harness.method import Measurement, Method, as_measurement
from methods.decoding.language_models import load_hugging_face
from methods.decoding.plansearch.chat import Chat, HuggingFaceChat
from methods.decoding.plansearch.ideas import Embedding, judged_diversity
from methods.decoding.plansearch.language import LanguageCoder, LanguageIdeas
from methods.decoding.plansearch.tasks import PythonWork, Written


class PythonSearch(Method[PythonWork, Written]):
    """A search with the task's models, judged by running its programs."""

    thinking: ClassVar[bool] = False
    """Whether programs that rest on nothing come after a chain of thought."""

    ideas_by: Literal["embedding", "judge"] = "embedding"
    """Diversity from embeddings of the programs, or from the code model as a judge of their ideas."""

    def prepare(self, work: PythonWork) -> None:
        """Load the models."""
        sandbox.check()  # before hours of generation, not after
        settings = work.settings
        self.chat = self.open(settings.pretrained, "code model")
        self.idea_chat = (
            self.open(settings.idea_pretrained, "idea model") if settings.idea_pretrained else self.chat
        )
        self.embedding = Embedding(self.context.device) if self.ideas_by == "embedding" else None

    def open(self, pretrained: str, role: str) -> Chat:
        """A model to talk to."""
        settings = self.work.settings
        model, tokenizer = load_hugging_face(pretrained, self.context.device, settings.dtype)
        return HuggingFaceChat(
            model, tokenizer, top_p=settings.top_p, limit=settings.limit, batch=settings.batch,
            seed=self.context.derive(role),
        )  # fmt: skip

    @abstractmethod
    def search(self, count: int, rng: np.random.Generator) -> list[list[str]]:
        """`count` programs for each problem, by `self.ideas` and `self.coder`."""

    def run(self) -> Written:
        """Write all programs; none is run here."""
        settings = self.work.settings
        chats: list[Any] = list({id(chat): chat for chat in (self.chat, self.idea_chat)}.values())
        before = sum(chat.tokens for chat in chats)
        self.ideas = LanguageIdeas(self.idea_chat, settings.temperature)
        self.coder = LanguageCoder(self.chat, settings.temperature, self.thinking)
        codes = self.search(settings.samples, self.context.rng("order of programs"))
        return Written(codes, sum(chat.tokens for chat in chats) - before)

    def measure(self, output: Written) -> Measurement:
        """The task's score, and the diversity of up to 25 programs of each problem."""
        score = as_measurement(self.task.score(self.work, output))
        rng = self.context.rng("programs to compare")
        if self.embedding is not None:
            found = self.embedding.diversity(output.codes, rng)
        else:
            found = judged_diversity(self.chat, self.work.problems, output.codes, rng)
        return score | {"diversity": found}
