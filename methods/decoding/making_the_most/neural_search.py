"""What all searches under a transformer share (part D)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.errors import BadOutput
from harness.method import Method
from methods.decoding.making_the_most.neural import NeuralStepper
from methods.decoding.making_the_most.search import Found
from methods.decoding.making_the_most.states import PretrainedDecoder
from methods.decoding.making_the_most.work import NeuralModeWork, Strings


class NeuralSearch(Method[NeuralModeWork, Strings]):
    """Loads the model and makes a stepper of it."""

    def build(self, work: NeuralModeWork) -> None:
        """Load the model and run the prompt."""
        from methods.decoding.small_models import load_causal_model

        model, tokenizer = load_causal_model(work.model, self.context.device, work.dtype, self.context.cache)
        prompt = tokenizer(work.prompt)["input_ids"] if work.prompt else []
        if not prompt:
            first = tokenizer.bos_token_id
            prompt = [tokenizer.eos_token_id if first is None else first]
        task: Any = self.task
        self.repetition: int | None = task.repetition or None
        self.stepper = NeuralStepper(PretrainedDecoder(model), prompt, tokenizer.eos_token_id)

    def searched(self, search: Callable[[int, int], Found | None]) -> Strings:
        """The string of every length and beam width.

        Raises:
            BadOutput: a search found nothing.
        """
        strings: Strings = {}
        for length in self.work.lengths:
            for beam in self.work.beams:
                found = search(length, beam)
                if found is None:
                    raise BadOutput(f"no string was found for the length {length} with a beam of {beam}")
                strings[length, beam] = found
        return strings
