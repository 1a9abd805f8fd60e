"""What the four parts are compared with."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from harness.errors import BadOutput
from harness.method import Measurement, Method, Metric, method
from harness.types import PositiveInt
from methods.decoding.making_the_most.chain import global_mode, mode_of_length
from methods.decoding.making_the_most.denoising import greedy
from methods.decoding.making_the_most.dynamic_evaluation import dynamic_evaluation
from methods.decoding.making_the_most.few_shot import Episodes
from methods.decoding.making_the_most.hidden_state import score
from methods.decoding.making_the_most.labelling import Labeller
from methods.decoding.making_the_most.neural_search import NeuralSearch
from methods.decoding.making_the_most.reading import ReadingMethod
from methods.decoding.making_the_most.search import (
    ChainStepper,
    Found,
    beam_search,
    depth_first_mode,
    sample,
)
from methods.decoding.making_the_most.segments import SegmentMethod
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


@method("plain-windows", task="window-reading")
class PlainWindows(ReadingMethod):
    """Windows that know nothing of each other."""

    window: PositiveInt = 16
    """w, tokens of a window."""

    def prepare(self, work: ReadingWork) -> None:
        """Fine-tune, or read what was fine-tuned before."""
        self.build(work, "plain", self.window)


@method("overlapping-windows", task="window-reading")
class OverlappingWindows(ReadingMethod):
    """Each window reads the last tokens of the one before again, without scoring them."""

    window: PositiveInt = 16
    """w, tokens of a window."""
    context_tokens: PositiveInt = 16
    """c, tokens that are read again; a window costs (w + c) / w."""

    def prepare(self, work: ReadingWork) -> None:
        """Fine-tune, or read what was fine-tuned before."""
        self.build(work, "overlap", self.window, self.context_tokens)


@method("cached-windows", task="window-reading")
class CachedWindows(ReadingMethod):
    """Each window attends to the cached states of the one before, without a gradient through them (Transformer-XL)."""

    window: PositiveInt = 16
    """w, tokens of a window."""
    context_tokens: PositiveInt = 16
    """c, cached positions."""

    def prepare(self, work: ReadingWork) -> None:
        """Fine-tune, or read what was fine-tuned before."""
        self.build(work, "cache", self.window, self.context_tokens)


# --- B ---------------------------------------------------------------------------------------------


@method("autoregressive-translator", task="pair-translation")
class AutoregressiveTranslator(TranslationMethod):
    """The same architecture with a causal decoder, teacher-forced; it writes greedily with cached keys and values."""

    initial: Literal["mlm", "encoder", "random"] = "mlm"
    """What begins as the masked language model: both parts, the encoder alone, or nothing."""

    def prepare(self, work: TranslationWork) -> None:
        """Train, or read what was trained before."""
        self.build(work, self.initial, autoregressive=True)

    def run(self) -> list[list[int]]:
        """Write token by token."""
        rows: list[list[int]] = []
        for source, mask in self.groups:
            rows += greedy(self.model, source, mask, self.tokens, self.longest)
        self.passes = min(self.longest, max(map(len, rows)) + 1)
        return rows


# --- C ---------------------------------------------------------------------------------------------


@method("cached-scoring", task="segment-scoring")
class CachedScoring(SegmentMethod):
    """Plain inference with a sliding cache; nothing is updated."""

    segment: PositiveInt = 16
    """Tokens read and scored at a time."""
    cache: PositiveInt = 128
    """Cached positions."""

    def prepare(self, work: SegmentWork) -> None:
        """Load the model."""
        self.build(work, (0.0,))

    def nats_of(self, rows: Tensor, eta: float) -> Tensor:
        """See `hidden_state.score`."""
        return score(self.base.model, rows, segment=self.segment, cache=self.cache).nats


@method(
    "dynamic-evaluation",
    task="segment-scoring",
    metrics=(
        Metric("eta_in_domain", "", "neither", "Step size that was best on the tuning piece."),
        Metric("eta_near", "", "neither", "Step size that was best on the tuning piece."),
        Metric("eta_far", "", "neither", "Step size that was best on the tuning piece."),
        Metric("state_bytes", "B", "lower", "Weights of all streams; the cache comes on top."),
    ),
)
class DynamicEvaluation(SegmentMethod):
    """The weights move along the gradient of each segment after it has been scored, apart for every stream."""

    segment: PositiveInt = 16
    """Tokens read and scored at a time."""
    cache: PositiveInt = 128
    """Cached positions."""
    etas: tuple[float, ...] = (0.003, 0.01, 0.03)
    """Step sizes of gradient descent to choose from for each domain."""

    def prepare(self, work: SegmentWork) -> None:
        """Load the model and choose the step sizes."""
        self.build(work, tuple(self.etas))
        weights = sum(p.numel() * p.element_size() for p in self.base.model.parameters())
        self.largest = weights * work.streams

    def nats_of(self, rows: Tensor, eta: float) -> Tensor:
        """See `dynamic_evaluation`."""
        return dynamic_evaluation(
            self.base.model, rows, segment=self.segment, cache=self.cache, eta=eta
        ).detach()

    def measure(self, output: Nats) -> Measurement:
        """The score, the step sizes and the bytes of the weights."""
        return self.etas_measured(output)


@method("plain-prompt", task="few-shot-labels")
class PlainPrompt(Labeller):
    """The prompt as it is."""

    def prepare(self, work: Episodes) -> None:
        """Load the model and encode the prompts."""
        self.build(work)

    def run(self) -> Tensor:
        """Label all queries."""
        return self.label(None, 0, False)


# --- D ---------------------------------------------------------------------------------------------


@method("forced-length-beam-search", task="mode-search")
class ForcedLengthBeamSearch(Method[ModeWork, Strings]):
    """Beam search in which a string cannot end before the length asked for, and must end at it."""

    def prepare(self, work: ModeWork) -> None:
        """Nothing to build."""
        self.stepper = ChainStepper(work.chain)

    def run(self) -> Strings:
        """Search for every length and beam width."""
        work = self.work
        return {
            (length, beam): _some(beam_search(self.stepper, beam, length, length=length))
            for length in work.lengths
            for beam in work.beams
        }


@method("plain-beam-search", task="mode-search")
class PlainBeamSearch(Method[ModeWork, Strings]):
    """Beam search for the most probable string of any length, whatever length is asked for."""

    normalised: bool = False
    """Choose among the finished strings by log P over the number of tokens."""
    minimum: bool = False
    """No end before the length asked for; longer strings may still win."""
    ending: Literal["always", "ranked"] = "always"
    """Every hypothesis may end at each step, or only those whose end is among the 2k best candidates."""
    longest: PositiveInt = 200
    """Most symbols of a string."""

    def prepare(self, work: ModeWork) -> None:
        """Nothing to build."""
        self.stepper = ChainStepper(work.chain)

    def run(self) -> Strings:
        """Search for every length and beam width."""
        strings: Strings = {}
        for length in self.work.lengths:
            for beam in self.work.beams:
                found = beam_search(
                    self.stepper, beam, self.longest, least=length if self.minimum else 0,
                    normalised=self.normalised, ending=self.ending,
                )  # fmt: skip
                strings[length, beam] = _some(found)
        return strings


@method("ancestral-sampling", task="mode-search")
class AncestralSampling(Method[ModeWork, Strings]):
    """Draw strings and keep the most probable one of the length asked for, or of the nearest length."""

    draws: PositiveInt = 500
    """Strings drawn for each hypothesis of the beam width."""

    def prepare(self, work: ModeWork) -> None:
        """Nothing to build."""
        self.stepper = ChainStepper(work.chain)

    def run(self) -> Strings:
        """Draw for every length and beam width."""
        rng = self.context.rng("drawn")
        strings: Strings = {}
        for length in self.work.lengths:
            for beam in self.work.beams:
                drawn = sample(self.stepper, self.draws * beam, 400, rng)
                if not drawn:
                    raise BadOutput("no draw ended")
                strings[length, beam] = min(drawn, key=lambda f: (abs(len(f.string) - 1 - length), -f.log_p))
        return strings


@method("exact-mode", task="mode-search")
class ExactMode(Method[ModeWork, Strings]):
    """The mode itself, by Viterbi."""

    conditional: bool = True
    """The mode of the length asked for, or the mode of all strings."""

    def prepare(self, work: ModeWork) -> None:
        """Nothing to build."""

    def run(self) -> Strings:
        """One mode for each length; the beam width says nothing here."""
        chain = self.work.chain
        strings: Strings = {}
        for length in self.work.lengths:
            string, log_p = mode_of_length(chain, length) if self.conditional else global_mode(chain, 500)
            strings |= {(length, beam): Found(string, log_p) for beam in self.work.beams}
        return strings


def _some(found: Found | None) -> Found:
    if found is None:
        raise BadOutput("a search found no string")
    return found


@method("neural-forced-length-beam-search", task="neural-mode-search")
class NeuralForcedLengthBeamSearch(NeuralSearch):
    """Beam search under a transformer that ends at the length asked for and nowhere else."""

    def prepare(self, work: NeuralModeWork) -> None:
        """Load the model."""
        self.build(work)

    def run(self) -> Strings:
        """Search for every length and beam width."""
        return self.searched(lambda length, beam: beam_search(self.stepper, beam, length, length=length))


@method("neural-beam-search", task="neural-mode-search")
class NeuralBeamSearch(NeuralSearch):
    """Beam search under a transformer for the most probable string of any length."""

    normalised: bool = False
    """Choose among the finished strings by log P over the number of tokens."""
    longest: PositiveInt = 100
    """Most tokens of a string."""

    def prepare(self, work: NeuralModeWork) -> None:
        """Load the model."""
        self.build(work)

    def run(self) -> Strings:
        """The same search for every length."""
        found = {
            beam: beam_search(self.stepper, beam, self.longest, normalised=self.normalised)
            for beam in self.work.beams
        }
        return self.searched(lambda _, beam: found[beam])


@method(
    "neural-exact-search",
    task="neural-mode-search",
    metrics=(
        Metric("complete", "", "higher", "Share of the searches that proved their string to be the mode."),
        Metric("expansions", "", "lower", "Forward passes of all searches."),
    ),
)
class NeuralExactSearch(NeuralSearch):
    """Depth-first search under a transformer, for the mode of all strings or of each length."""

    conditional: bool = False
    """The mode of the length asked for; this is feasible for very short strings only."""
    longest: PositiveInt = 100
    """Most tokens of a string."""
    most: PositiveInt = 20_000
    """Forward passes after which a search gives up with the best string so far."""

    def prepare(self, work: NeuralModeWork) -> None:
        """Load the model."""
        self.build(work)

    def run(self) -> Strings:
        """One search for each length, or one for all."""
        lengths = self.work.lengths if self.conditional else (None,)
        searches = {
            length: depth_first_mode(self.stepper, self.longest, length=length, most=self.most)
            for length in lengths
        }
        self.searches = list(searches.values())
        return self.searched(lambda length, _: searches[length if self.conditional else None].found)

    def measure(self, output: Strings) -> Measurement:
        """The score, and how far the searches came."""
        complete = sum(search.complete for search in self.searches) / len(self.searches)
        expansions = float(sum(search.expansions for search in self.searches))
        return Measurement(dict(self.task.score(self.work, output))) | {  # type: ignore[arg-type]
            "complete": complete,
            "expansions": expansions,
        }
