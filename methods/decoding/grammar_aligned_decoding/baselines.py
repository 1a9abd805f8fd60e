"""Local masking with pretrained models."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from harness.method import Method, method
from methods.decoding.grammar_aligned_decoding.tasks import Generated, GenerationProblem
from methods.decoding.sampling import Samples, enumerate_language


class Generator(Method[GenerationProblem, Generated]):
    """What the arms of `grammar-generation` share: loading, sampling and the exact target."""

    @abstractmethod
    def processor(self) -> Any:
        """A fresh `GrammarProcessor` for one run."""

    def prepare(self, work: GenerationProblem) -> None:
        """Load the model and build the grammar over its tokens.

        Raises:
            MissingModel: the model cannot be loaded.
        """
        from methods.decoding.grammars import ContextFree
        from methods.decoding.language_models import HuggingFaceModel
        from methods.decoding.small_models import load_causal_model

        settings = work.settings
        model, tokenizer = load_causal_model(settings.pretrained, self.context.device, settings.dtype)
        self.model = HuggingFaceModel(model, tokenizer, work.prompt, settings.temperature)
        self.grammar = ContextFree(work.ebnf, self.model.vocabulary)

    def run(self) -> Generated:
        """Draw all strings, from an empty tree."""
        from methods.decoding.grammar_aligned_decoding.generation import generate

        self.last = self.processor()
        settings, seed = self.work.settings, self.context.derive("samples")
        samples: Samples = generate(
            self.model, self.last, settings.samples, settings.limit, settings.batch, seed
        )
        return Generated(**vars(samples), grammar=self.grammar, exact=None)

    def target(self, output: Generated) -> Generated:
        """The output with the enumerated language under the model, where it is finite."""
        if self.work.finite:
            output.exact = enumerate_language(self.model, self.grammar)
        return output


@method("gcd-generation", task="grammar-generation", packages=("llguidance>=1.0", "lark>=1.2"))
class GcdGeneration(Generator):
    """Local masking of a pretrained model: the grammar's mask on the logits, and nothing learned."""

    def processor(self) -> Any:
        """Masks without c~."""
        from methods.decoding.grammar_aligned_decoding.generation import GrammarProcessor

        return GrammarProcessor(self.grammar, len(self.model.prompt_ids), self.model.temperature)

    def measure(self, output: Generated) -> Any:
        """The task's score against the exact target."""
        return self.task.score(self.work, self.target(output))
