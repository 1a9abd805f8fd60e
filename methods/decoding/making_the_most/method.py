"""The thesis's four methods: recurrence (A), a masked language model as translator (B), hidden-state optimisation (C) and
conditional beam search (D)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from harness.errors import BadOutput
from harness.method import Measurement, Method, Metric, method
from harness.types import Fraction, NonNegativeFloat, PositiveInt
from methods.decoding.making_the_most.chain import Chain
from methods.decoding.making_the_most.few_shot import Episodes
from methods.decoding.making_the_most.hidden_state import Update, score
from methods.decoding.making_the_most.labelling import Labeller
from methods.decoding.making_the_most.modes import searched_threshold
from methods.decoding.making_the_most.neural_search import NeuralSearch
from methods.decoding.making_the_most.prefix_classifier import (
    FeaturedChain,
    LearnedCondition,
    train_classifier,
)
from methods.decoding.making_the_most.reading import ReadingMethod
from methods.decoding.making_the_most.search import (
    ChainStepper,
    Condition,
    ExactLength,
    beam_search,
    sample,
)
from methods.decoding.making_the_most.segments import SegmentMethod
from methods.decoding.making_the_most.sentences import state_pairs
from methods.decoding.making_the_most.translation import TranslationMethod
from methods.decoding.making_the_most.work import (
    ModeWork,
    Nats,
    NeuralModeWork,
    ReadingWork,
    SegmentWork,
    Strings,
    TranslationWork,
)

# --- A ---------------------------------------------------------------------------------------------


@method("recurrent-windows", task="window-reading")
class RecurrentWindows(ReadingMethod):
    """A decoder whose window begins with one vector computed from the hidden states of the window before."""

    window: PositiveInt = 16
    """w, tokens of a window."""
    layer: int = -1
    """Layer whose hidden states are averaged; -1 is the last."""
    train: Literal["all", "recurrence"] = "all"
    """Fine-tune everything, or the recurrence alone."""

    def prepare(self, work: ReadingWork) -> None:
        """Fine-tune by truncated back-propagation, or read what was fine-tuned before."""
        self.build(work, "recurrence", self.window, layer=self.layer, only=self.train)


# --- B ---------------------------------------------------------------------------------------------


@method("denoising-translator", task="pair-translation")
class DenoisingTranslator(TranslationMethod):
    """A masked language model as encoder and bidirectional decoder, trained by step-unrolled denoising."""

    initial: Literal["mlm", "encoder", "random"] = "mlm"
    """What begins as the masked language model: both parts, the encoder alone, or nothing."""
    passes: PositiveInt = 4
    """T, decoder passes."""
    candidates: PositiveInt = 2
    """Lengths that are tried."""
    share: Fraction = 0.5
    """Random share of the positions that a pass after the first may change."""
    temperature: NonNegativeFloat = 0.0
    """Of the draws; 0 takes the most probable token."""

    def prepare(self, work: TranslationWork) -> None:
        """Train, or read what was trained before."""
        self.build(work, self.initial, autoregressive=False)

    def run(self) -> list[list[int]]:
        """Refine random tokens."""
        return self.refined(self.passes, self.candidates, self.share, self.temperature)


# --- C ---------------------------------------------------------------------------------------------


@method(
    "hidden-state-optimisation",
    task="segment-scoring",
    metrics=(
        Metric("eta_in_domain", "", "neither", "Step size that was best on the tuning piece."),
        Metric("eta_near", "", "neither", "Step size that was best on the tuning piece."),
        Metric("eta_far", "", "neither", "Step size that was best on the tuning piece."),
        Metric("state_bytes", "B", "lower", "Largest size of the cache with its moments."),
    ),
)
class HiddenStateOptimisation(SegmentMethod):
    """Cached states move along the gradient of each segment after it has been scored."""

    segment: PositiveInt = 16
    """s, tokens read and scored at a time."""
    cache: PositiveInt = 128
    """C, cached positions."""
    rule: Literal["adam", "sgd"] = "adam"
    """How states move."""
    etas: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    """Step sizes to choose from for each domain."""
    beta1: Fraction = 0.9
    """Decay of the first moment."""
    beta2: Fraction = 0.99
    """Decay of the second moment."""
    epsilon: NonNegativeFloat = 1e-4
    """Added to the root of the second moment."""
    own: bool = True
    """Whether a segment's own states move before they enter the cache."""

    def prepare(self, work: SegmentWork) -> None:
        """Load the model and choose the step sizes."""
        self.build(work, tuple(self.etas))

    def nats_of(self, rows: Tensor, eta: float) -> Tensor:
        """See `hidden_state.score`."""
        update = Update(eta, self.rule, (self.beta1, self.beta2), self.epsilon, self.own)
        scored = score(self.base.model, rows, segment=self.segment, cache=self.cache, update=update)
        self.largest = max(self.largest, scored.bytes)
        return scored.nats

    def measure(self, output: Nats) -> Measurement:
        """The score, the step sizes and the bytes of the states."""
        return self.etas_measured(output)


@method("optimised-prompt", task="few-shot-labels")
class OptimisedPrompt(Labeller):
    """The prompt's cached states move towards its own demonstrations before the query is labelled."""

    eta: NonNegativeFloat = 0.03
    """Step size."""
    steps: PositiveInt = 3
    """Updates."""
    everywhere: bool = False
    """Predict all tokens of the prompt, not the labels alone."""
    epsilon: NonNegativeFloat = 1e-4
    """Added to the root of Adam's second moment."""

    def prepare(self, work: Episodes) -> None:
        """Load the model and encode the prompts."""
        self.build(work)

    def run(self) -> Tensor:
        """Label all queries."""
        return self.label(Update(self.eta, epsilon=self.epsilon), self.steps, self.everywhere)


# --- D ---------------------------------------------------------------------------------------------


@method("conditional-beam-search", task="mode-search")
class ConditionalBeamSearch(Method[ModeWork, Strings]):
    """Beam search that ranks by log p of a prefix plus the log-probability that it goes on to the length asked for."""

    classifier: Literal["exact", "learned"] = "exact"
    """By dynamic programming over the chain, or trained on strings that the model drew."""
    top: PositiveInt = 100
    """Next tokens of each hypothesis for which the condition is evaluated."""
    draws: PositiveInt = 1500
    """Strings to train on (learned)."""
    steps: PositiveInt = 600
    """Of training (learned)."""

    def prepare(self, work: ModeWork) -> None:
        """The exact law of the lengths, or the classifier."""
        self.stepper = ChainStepper(work.chain)
        self.conditions: dict[int, Condition] = {}
        if self.classifier == "exact":
            self.conditions = {length: ExactLength(work.chain, length) for length in work.lengths}
            return
        featured = FeaturedChain(work.chain, state_pairs())
        drawn = sample(featured, self.draws, 400, self.context.rng("drawn"))
        classifier = train_classifier(
            featured, drawn, max(work.lengths), steps=self.steps, seed=self.context.derive("classifier")
        )
        self.conditions = {length: LearnedCondition(featured, classifier, length) for length in work.lengths}

    def run(self) -> Strings:
        """Search for every length and beam width.

        Raises:
            BadOutput: no string of a length was found.
        """
        strings: Strings = {}
        for length in self.work.lengths:
            for beam in self.work.beams:
                condition = self.conditions[length]
                found = beam_search(self.stepper, beam, length, condition=condition, top=self.top)
                if found is None:
                    raise BadOutput(f"no string of {length} symbols was found")
                strings[length, beam] = found
        return strings


@method("searched-threshold", task="degenerate-threshold")
class SearchedThreshold(Method[Chain, float]):
    """Bisection over mixtures of the text with empty strings, whose modes are searched for exactly."""

    longest: PositiveInt = 500
    """Most symbols of a mode."""
    tolerance: NonNegativeFloat = 1e-6
    """Relative width of the last interval."""

    def prepare(self, work: Chain) -> None:
        """Nothing to build."""

    def run(self) -> float:
        """The share of noise from which on the mode is empty."""
        return searched_threshold(self.work, self.longest, self.tolerance)


@method("neural-conditional-beam-search", task="neural-mode-search")
class NeuralConditionalBeamSearch(NeuralSearch):
    """Conditional beam search under a transformer, with a classifier of prefixes that is trained on its own samples."""

    top: PositiveInt = 100
    """Next tokens of each hypothesis for which the classifier is evaluated."""
    draws: PositiveInt = 2000
    """Strings that the model draws for the classifier to train on."""
    steps: PositiveInt = 2000
    """Of training."""
    hidden: PositiveInt = 256
    """Width of its hidden layer."""

    def prepare(self, work: NeuralModeWork) -> None:
        """Load the model, draw from it, and train the classifier."""
        self.build(work)
        longest = 4 * max(work.lengths)
        drawn = sample(self.stepper, self.draws, longest, self.context.rng("drawn"))
        if not drawn:
            raise BadOutput(f"none of {self.draws} draws ended within {longest} tokens: nothing to train on")
        repetition = self.repetition
        classifier = train_classifier(
            self.stepper, drawn, max(work.lengths), n=repetition or 4, steps=self.steps, hidden=self.hidden,
            seed=self.context.derive("classifier"), device=self.context.device,
        )  # fmt: skip
        self.conditions = {
            length: LearnedCondition(self.stepper, classifier, length, repetition) for length in work.lengths
        }

    def run(self) -> Strings:
        """Search for every length and beam width."""
        return self.searched(
            lambda length, beam: beam_search(
                self.stepper, beam, length, condition=self.conditions[length], top=self.top
            )
        )
