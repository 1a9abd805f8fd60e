"""What the four parts are measured on."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from harness.errors import RequestError
from harness.method import Measurement, Metric, Task, task
from harness.seeding import rng
from harness.types import Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from methods.common.corpora import corpus
from methods.decoding.making_the_most import scores
from methods.decoding.making_the_most.chain import Chain, mode_of_length, uniform_binary
from methods.decoding.making_the_most.domains import piece_of
from methods.decoding.making_the_most.few_shot import Episodes, question_episodes, symbol_episodes
from methods.decoding.making_the_most.pairs import code_pairs, restoring_pairs
from methods.decoding.making_the_most.sentences import dictionary, good_text, trigram_chain
from methods.decoding.making_the_most.work import (
    ModeWork,
    Nats,
    NeuralModeWork,
    Reading,
    ReadingWork,
    SegmentWork,
    Strings,
    Translations,
    TranslationWork,
)


@task(
    "mode-search",
    metrics=(
        Metric("log_probability", "nats", "higher", "Mean log P of the strings."),
        Metric("gap", "nats", "lower", "Mean of log P of the exact mode of the length asked for, less log P."),
        Metric("satisfied", "", "higher", "Share of the strings that have the length asked for."),
        Metric("degenerate", "", "lower", "Share of the strings that are empty."),
        Metric("dictionary_share", "", "higher", "Mean share of the words that the novel has five times."),
        Metric("repetition", "", "lower", "Mean share of the character 4-grams that occurred before."),
    ),
    amount_unit="strings",
    data=("gutenberg-novels",),
)
class ModeSearch(Task[ModeWork, Strings]):
    """Find the most probable sentence of each length under a character trigram model, for several beam widths."""

    text: str = "gutenberg-novels/middlemarch.txt.gz"
    """Text whose sentences make the model."""
    empty: Fraction = 0.005
    """Empty sentences for each sentence of the text."""
    titles: bool = True
    """The full stop of a title ("Mr.") or an initial ends no sentence. If it does, many sentences end in "mr"."""
    lengths: tuple[int, ...] = (20, 40, 60)
    """Lengths asked for, in symbols."""
    beams: tuple[int, ...] = (1, 2, 5, 20)
    """Beam widths; other methods may take them as a budget."""

    def load(self, seed: int) -> ModeWork:
        """The model and the exact modes. Does not depend on `seed`."""
        chain = trigram_chain(self.text, self.empty, titles=self.titles)
        exact = {length: mode_of_length(chain, length)[1] for length in self.lengths}
        return ModeWork(tuple(self.lengths), tuple(self.beams), chain, exact, dictionary(self.text))

    def amount(self, work: ModeWork) -> float:
        """Strings to find."""
        return float(len(work.lengths) * len(work.beams))

    def score(self, work: ModeWork, output: Strings) -> Measurement:
        """Log probabilities, distances from the exact modes, and what the strings look like.

        Raises:
            BadOutput: a string is missing, or its log P is not that of the model.
        """
        return scores.of_modes(work, output)


@task(
    "degenerate-threshold",
    metrics=(
        Metric(
            "relative_error", "", "lower", "Of the share of noise that was found, to the closed form.", True
        ),
        Metric("log10_threshold", "", "neither", "log10 of the least share of noise with an empty mode.", True),
        Metric("log10_typical", "", "neither", "log10 exp(-H), H the entropy of the text without noise.", True),
        Metric(
            "empty_at_share", "", "neither", "1 where the mode at the task's share of noise is empty.", True
        ),
    ),
    data=("gutenberg-novels",),
)
class DegenerateThreshold(Task[Chain, float]):
    """From which share of empty strings on is the mode of a perfect model of the mixture empty?"""

    law: Literal["uniform-binary", "sentences"] = "uniform-binary"
    """All strings of `length` bits alike, or the trigram model of a novel's sentences."""
    length: PositiveInt = 20
    """Bits (uniform-binary)."""
    share: Fraction = 0.005
    """Share of noise at which the mode is looked at."""

    def load(self, seed: int) -> Chain:
        """The law without noise. Does not depend on `seed`."""
        if self.law == "uniform-binary":
            return uniform_binary(self.length)
        return good_text("gutenberg-novels/middlemarch.txt.gz")

    def score(self, work: Chain, output: float) -> dict[str, float]:
        """Against e / (1 - e) = max P.

        Raises:
            BadOutput: not a share.
        """
        return scores.of_threshold(work, output, self.share)


@task(
    "neural-mode-search",
    metrics=(
        Metric("log_probability", "nats", "higher", "Mean log P of the strings that fulfil the condition."),
        Metric("satisfied", "", "higher", "Share of the strings that fulfil the condition."),
        Metric("degenerate", "", "lower", "Share of the strings that are empty."),
        Metric("repetition", "", "lower", "Mean share of the token 4-grams that occurred before."),
    ),
    amount_unit="strings",
)
class NeuralModeSearch(Task[NeuralModeWork, Strings]):
    """Find probable strings of given lengths under a transformer, for several beam widths."""

    model: str = "medium:gutenberg-novels/middlemarch.txt.gz"
    """A size and a text of `methods.decoding.small_models`, or a causal model of transformers."""
    prompt: str = ""
    """Text before the strings."""
    lengths: tuple[int, ...] = (10, 20, 40)
    """Lengths asked for, in tokens."""
    beams: tuple[int, ...] = (1, 5, 20)
    """Beam widths."""
    repetition: NonNegativeInt = 0
    """A string that has so many tokens in a row twice does not fulfil the condition; 0: it may have them."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the model."""

    def load(self, seed: int) -> NeuralModeWork:
        """What is asked. Does not depend on `seed`; the model is loaded by the method."""
        return NeuralModeWork(self.model, tuple(self.lengths), tuple(self.beams), self.prompt, self.dtype)

    def amount(self, work: NeuralModeWork) -> float:
        """Strings to find."""
        return float(len(work.lengths) * len(work.beams))

    def score(self, work: NeuralModeWork, output: Strings) -> dict[str, float]:
        """Log probabilities of the strings that fulfil the condition; the least finite float where none does.

        Raises:
            BadOutput: a string is missing.
        """
        return scores.of_strings(work, output, self.repetition)


@task(
    "segment-scoring",
    metrics=(
        Metric("in_domain", "nats/byte", "lower", "Of text like the one that the model was trained on."),
        Metric("near", "nats/byte", "lower", "Of text somewhat unlike it."),
        Metric("far", "nats/byte", "lower", "Of text quite unlike it."),
    ),
    amount_unit="bytes",
    data=("gutenberg-novels", "java-cs-translation"),
)
class SegmentScoring(Task[SegmentWork, Nats]):
    """Score text of three domains segment by segment with a frozen model; the past may be used in any way."""

    model: str = "novel-bytes"
    """A recipe of `models.py`, or a causal model of transformers."""
    in_domain_text: str = "gutenberg-novels/middlemarch.txt.gz"
    """Text of the model's own domain."""
    in_domain_from: NonNegativeInt = 1_600_000
    """First byte of it that the model has not seen."""
    near_text: str = "gutenberg-novels/tinyshakespeare.txt.gz"
    """Text of a domain near to it."""
    far_text: str = "java-cs-translation/test.jsonl.gz#java"
    """Text of a domain far from it."""
    bytes: PositiveInt = 20_000
    """Bytes of each domain to score."""
    tuning: PositiveInt = 8000
    """Bytes of each domain to tune on."""
    streams: PositiveInt = 40
    """Parts that are scored side by side, each with a past of its own."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of a model of transformers."""

    def load(self, seed: int) -> SegmentWork:
        """A piece to tune on from the first half of each text and one to score from the second, at places of the seed's.

        Raises:
            RequestError: a text is too short.
        """
        texts = {
            "in_domain": (self.in_domain_text, self.in_domain_from),
            "near": (self.near_text, 0),
            "far": (self.far_text, 0),
        }
        domains = {
            name: piece_of(text, first, self.tuning, self.bytes, rng(seed, "pieces", name))
            for name, (text, first) in texts.items()
        }
        return SegmentWork(self.model, self.dtype, self.streams, domains)

    def amount(self, work: SegmentWork) -> float:
        """Bytes to score."""
        return float(len(work.domains) * self.bytes)

    def score(self, work: SegmentWork, output: Nats) -> dict[str, float]:
        """Nats per byte of each domain.

        Raises:
            BadOutput: a domain is missing, or much of its text was not scored.
        """
        return scores.of_segments(work, output)


@task(
    "few-shot-labels",
    metrics=(
        Metric("accuracy", "", "higher", "Share of the queries whose label has the highest probability."),
    ),
    amount_unit="queries",
    data=("bigbench-lite-mc", "mmlu-subset"),
)
class FewShotLabels(Task[Episodes, Tensor]):
    """Label a query from the demonstrations in the prompt."""

    source: Literal["symbols", "bigbench-lite-mc", "mmlu-subset"] = "symbols"
    """Random maps from symbols to labels, or multiple-choice questions."""
    model: str = "in-context-learner"
    """``in-context-learner``: a transformer that is trained on such maps; else a causal model of transformers."""
    episodes: PositiveInt = 500
    """Queries."""
    symbols: PositiveInt = 8
    """Symbols of a map (symbols)."""
    labels: PositiveInt = 4
    """Labels of a map (symbols)."""
    demonstrations: PositiveInt = 12
    """Demonstrations in a prompt."""

    def load(self, seed: int) -> Episodes:
        """Prompts, queries and labels.

        Raises:
            RequestError: the model does not fit the source, or there are not enough demonstrations.
        """
        stream = rng(seed, "episodes")
        if (self.source == "symbols") != (self.model == "in-context-learner"):
            raise RequestError(
                "the in-context learner knows symbols and nothing else; questions need a model by its name"
            )
        if self.source == "symbols":
            return symbol_episodes(self.episodes, self.symbols, self.labels, self.demonstrations, stream)
        return question_episodes(self.source, self.episodes, self.demonstrations, stream)

    def amount(self, work: Episodes) -> float:
        """Queries."""
        return float(len(work))

    def score(self, work: Episodes, output: Tensor) -> dict[str, float]:
        """Share of the queries with the right label.

        Raises:
            BadOutput: not one label for each query.
        """
        return scores.of_labels(work, output)


@task(
    "window-reading",
    metrics=(
        Metric("nats_per_byte", "nats/byte", "lower", "Of held-out text, read in order."),
        Metric("flops_per_token", "FLOP", "lower", "Of a forward pass, per token scored.", True),
        Metric("training_memory", "B", "lower", "Peak of a training step, one window at a time.", True),
        Metric("inference_memory", "B", "lower", "Peak while windows are read.", True),
    ),
    repeats="adaptive",
    amount_unit="bytes",
    data=("gutenberg-novels",),
)
class WindowReading(Task[ReadingWork, Reading]):
    """Fine-tune a pretrained decoder to read a text in windows, and read held-out text with it (`run` is the reading)."""

    model: str = "novel-bytes"
    """A recipe of `models.py`, or a causal model of transformers."""
    text: str = "gutenberg-novels/middlemarch.txt.gz"
    """To fine-tune on and to read."""
    held_out_text: str = ""
    """Another text to read; "" reads the end of `text`."""
    held_out_from: PositiveInt = 1_600_000
    """First byte of `text` that is held out."""
    bytes: PositiveInt = 96_000
    """Held-out bytes to read."""
    streams: PositiveInt = 32
    """Parts that are read side by side."""
    steps: NonNegativeInt = 300
    """Of fine-tuning."""
    batch: PositiveInt = 32
    """Rows a step."""
    span: PositiveInt = 96
    """Tokens of a row: B w, where a reader has windows of w tokens; rounded to whole windows."""
    lr: PositiveFloat = 0.001
    """Peak learning rate."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of a model of transformers."""

    def load(self, seed: int) -> ReadingWork:
        """The texts. Does not depend on `seed`, from which the method draws the order.

        Raises:
            RequestError: there are fewer held-out bytes than asked for.
        """
        text = corpus(self.text)
        rest = corpus(self.held_out_text) if self.held_out_text else text[self.held_out_from :]
        if len(rest) < self.bytes:
            raise RequestError(f"there are {len(rest)} held-out bytes, not {self.bytes}")
        training = text if self.held_out_text else text[: self.held_out_from]
        return ReadingWork(
            self.model, self.dtype, training, rest[: self.bytes], self.streams,
            self.steps, self.batch, self.span, self.lr,
        )  # fmt: skip

    def amount(self, work: ReadingWork) -> float:
        """Bytes to read."""
        return float(len(work.held_out))

    def score(self, work: ReadingWork, output: Reading) -> dict[str, float]:
        """Nats per byte, and what the method says of its cost.

        Raises:
            BadOutput: much of the text was not read.
        """
        return scores.of_reading(work, output)


@task(
    "pair-translation",
    metrics=(
        Metric("validation_loss", "nats", "lower", "The method's own training loss on the test pairs."),
        Metric("token_accuracy", "", "higher", "Share of the target's tokens that stand at their place."),
        Metric("length_accuracy", "", "higher", "Share of the outputs with as many tokens as the target."),
        Metric("exact_match", "", "higher", "Share of the outputs that are the target."),
        Metric("bleu", "", "higher", "Corpus BLEU-4 of sacrebleu on words, 0 to 100."),
        Metric("passes", "", "lower", "Decoder passes for a batch."),
    ),
    amount_unit="sequences",
    data=("gutenberg-novels", "java-cs-translation"),
)
class PairTranslation(Task[TranslationWork, Translations]):
    """Train a sequence-to-sequence model (in `prepare`) and translate the test sources with it (in `run`)."""

    pairs: Literal["restored-text", "java-cs"] = "restored-text"
    """Snippets of a novel without spaces and case to the snippets, or Java functions to C#."""
    mlm: str = "bytes-mlm"
    """A recipe of `masked_models.py`, or a masked language model of transformers."""
    count: PositiveInt = 20_000
    """Training pairs (restored-text)."""
    test: PositiveInt = 64
    """Test pairs."""
    together: PositiveInt = 64
    """Test sources that are translated side by side; 1 measures the time of single sequences."""
    steps: NonNegativeInt = 150
    """Of training."""
    batch: PositiveInt = 32
    """Pairs a step."""
    lr: PositiveFloat = 0.001
    """Peak learning rate."""
    longest: PositiveInt = 48
    """Most tokens of a source or target; longer training pairs are left out, longer sources are cut."""

    def load(self, seed: int) -> TranslationWork:
        """The pairs. The training pairs are the same for every seed, from which the method draws their order."""
        if self.pairs == "restored-text":
            training, test = restoring_pairs(self.count, 0, False), restoring_pairs(self.test, seed, True)
        else:
            training, test = code_pairs("train"), code_pairs("test")[: self.test]
        return TranslationWork(
            self.mlm, training, test, self.together, self.steps, self.batch, self.lr, self.longest
        )

    def amount(self, work: TranslationWork) -> float:
        """Sequences to translate."""
        return float(len(work.test))

    def score(self, work: TranslationWork, output: Translations) -> dict[str, float]:
        """Exact match, BLEU, and what the method measured in tokens.

        Raises:
            BadOutput: not one output for each source.
        """
        return scores.of_translations(work, output)
