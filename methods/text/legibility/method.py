"""LEGIT: models that learn from pairs whether a perturbed word is legible, and attacks that stay legible."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np

from harness.errors import MissingModel, RequestError
from harness.method import Measurement, Method, Metric, Series, method
from harness.types import Fraction, PositiveFloat, PositiveInt
from methods.text.legibility.attacks import changed
from methods.text.legibility.objectives import Objective
from methods.text.legibility.pairs import Pairs, oracle_pairs
from methods.text.legibility.perturbation import MOST, neighbours, perturb
from methods.text.legibility.tasks import Judgements
from methods.text.legibility.victims import Attacked, AttackWork


class _Learned(Method[Judgements, np.ndarray]):
    """A network that learns from pairs; `run` trains it and scores the test pairs."""

    objective: Objective = "multi-task"
    """Which terms of the loss: all, the ranking of the two words alone, or the classification of single words alone."""
    lr: PositiveFloat = 2e-3
    """Learning rate of AdamW, constant; the paper has 1e-5 for its pretrained encoder."""
    batch: PositiveInt = 64
    """Pairs of a batch; the paper has 26."""
    accumulation: PositiveInt = 1
    """Batches of a step; the paper has 2."""
    epochs: PositiveInt = 6
    """Passes over the training pairs."""
    evaluate_every: PositiveInt = 100
    """Steps between evaluations on the validation pairs, of which the best is kept; the paper has 200."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """dtype of autocast."""

    @abstractmethod
    def build(self) -> object:
        """A new network."""

    def prepare(self, work: Judgements) -> None:
        """Read the font and build a network once, so that what is missing shows here."""
        from methods.text.legibility.training import Recipe

        self.recipe = Recipe(
            self.objective,
            self.lr,
            self.batch,
            self.accumulation,
            self.epochs,
            self.evaluate_every,
            self.precision,
        )
        self.build()

    def run(self) -> np.ndarray:
        """Train on the training pairs, then score the test pairs; scores less the threshold, which is 0 but
        for ranking."""
        from methods.text.legibility.training import scores, train

        work, context = self.work, self.context
        self.trained = train(
            self.build, work.training, work.validation, self.recipe, context.seed, context.device
        )
        return scores(self.trained.network, work.test, context.device) - self.trained.threshold

    def measure(self, output: np.ndarray) -> Measurement:
        """The task's score, the size of the network, and its evaluations."""
        steps, values = zip(*self.trained.curve, strict=True)
        size = sum(parameter.numel() for parameter in self.trained.network.parameters())
        return Measurement(dict(self.task.score(self.work, output))) | Measurement(
            {"parameters": float(size)}, {"validation": Series(steps, values, "step", "F1 or ranking accuracy")}
        )


@method(
    "vision-legibility",
    task="word-legibility",
    metrics=(Metric("parameters", better="neither", doc="Trained numbers.", deterministic=True),),
)
class VisionLegibility(_Learned):
    """The paper's model: an encoder of the picture of the perturbed word and the clean one, mean state, two layers."""

    encoder: str = "cnn"
    """`cnn` (four convolutions), `small-vit` (6 blocks of width 256), `trocr-base-shape` (random weights), or a Hugging
    Face vision encoder such as the paper's microsoft/trocr-base-handwritten."""
    length: PositiveInt = 12
    """Cells of a line (of the first two, which see the perturbed word above the clean one)."""

    def build(self) -> object:
        """The network of `encoder`."""
        from methods.text.legibility.networks import vision_network

        return vision_network(self.encoder, self.length)


@method(
    "text-legibility",
    task="word-legibility",
    metrics=(Metric("parameters", better="neither", doc="Trained numbers.", deterministic=True),),
)
class TextLegibility(_Learned):
    """The same head and loss over the characters of "perturbed [SEP] clean"."""

    encoder: str = "gru"
    """`gru` (a two-way GRU over characters), `minilm` (sub-words, accents stripped), or a Hugging Face text encoder."""

    def build(self) -> object:
        """The network of `encoder`."""
        from methods.text.legibility.networks import text_network

        return text_network(self.encoder)


@method("released-legibility", task="word-legibility")
class ReleasedLegibility(Method[Judgements, np.ndarray]):
    """The authors' trained model, from the Hugging Face hub; only its weights are loaded, none of its code."""

    weights: str = "dvsth/LEGIT-TrOCR-MT"
    """Hugging Face id or folder of the model: a ViT of TrOCR-base's shape and the two layers over it."""

    def prepare(self, work: Judgements) -> None:
        """Load the weights.

        Raises:
            MissingModel: they cannot be loaded, or are not of this model.
        """
        from methods.text.legibility.networks import TROCR_SHAPE, vision_network
        from methods.text.legibility.released import state_of

        self.network = vision_network(TROCR_SHAPE, 1)
        try:
            self.network.load_state_dict(state_of(self.weights))
        except RuntimeError as error:
            raise MissingModel(f"'{self.weights}' is not a LEGIT-TrOCR model: {error}") from error
        self.network = self.network.to(self.context.device).eval()

    def run(self) -> np.ndarray:
        """Score the test pairs."""
        from methods.text.legibility.training import scores

        return scores(self.network, self.work.test, self.context.device, batch=32)


class _Scoring(Method[Pairs, np.ndarray]):
    """Scoring a batch of pairs with a network whose weights do not matter."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """dtype of the network."""

    @abstractmethod
    def build(self) -> object:
        """A new network."""

    def prepare(self, work: Pairs) -> None:
        """Build the network on the device."""
        import torch

        self.network = self.build().to(self.context.device, getattr(torch, self.precision)).eval()  # type: ignore[attr-defined]

    def run(self) -> np.ndarray:
        """Draw or encode the words and score them, all words in one batch."""
        from methods.text.legibility.training import scores

        return scores(self.network, self.work, self.context.device, batch=len(self.work))


@method("vision-scoring", task="legibility-scoring")
class VisionScoring(_Scoring):
    """Scores from pictures; drawing them counts."""

    encoder: str = "cnn"
    """As of `vision-legibility`."""
    length: PositiveInt = 12
    """Cells of a line."""

    def build(self) -> object:
        """The network of `encoder`."""
        from methods.text.legibility.networks import vision_network

        return vision_network(self.encoder, self.length)


@method("text-scoring", task="legibility-scoring")
class TextScoring(_Scoring):
    """Scores from characters."""

    encoder: str = "gru"
    """As of `text-legibility`."""

    def build(self) -> object:
        """The network of `encoder`."""
        from methods.text.legibility.networks import text_network

        return text_network(self.encoder)


@method("legible-perturbations", task="legible-attack")
class LegiblePerturbations(Method[AttackWork, Attacked]):
    """The paper's attack: perturbations as strong as those of its data, of which only legible ones are used.

    For every word k is uniform in 1..50 and n in `least_n`..1. Up to `tries` perturbations are drawn until the judge
    calls one legible; a word for which none is found stays.
    """

    judge: Literal["annotators", "model"] = "annotators"
    """Who calls a word legible: at least 4 of 5 noisy readers, or a vision model that has learnt from their choices."""
    tries: PositiveInt = 5
    """Perturbations of a word that are tried."""
    least_n: Fraction = 0.2
    """Least share of exchanged characters."""
    space: str = "imgdot"
    """Space of the neighbours."""
    training: PositiveInt = 4000
    """Pairs that the model learns from; a tenth as many choose its evaluation."""

    def prepare(self, work: AttackWork) -> None:
        """Find the neighbours; make the reader or train the model."""
        self.table = neighbours(self.space)
        self.reader = work.reader()
        if self.judge == "model":
            from methods.text.legibility.networks import GlyphCnn
            from methods.text.legibility.training import Recipe, trained_or_kept

            longest = 12
            parts = oracle_pairs(
                (self.training, max(1, self.training // 10)), self.context.rng("judge's pairs"), longest=longest,
                least_n=self.least_n, space=self.space,
            )  # fmt: skip
            self.model, self.longest = (
                trained_or_kept(
                    f"cnn of {longest} cells", lambda: GlyphCnn(longest), *parts, Recipe(), self.context.seed,
                    self.context.device, self.context.cache,
                ),
                longest,
            )  # fmt: skip

    def run(self) -> Attacked:
        """All distinct tokens of all texts are perturbed together, once for each place where they stand."""
        from methods.text.legibility.pairs import WORD

        rng = self.context.rng("attack")
        texts = [text.split() for text in self.work.test]
        open_places = [
            (t, p) for t, text in enumerate(texts) for p, token in enumerate(text) if WORD.fullmatch(token)
        ]
        words = {place: texts[place[0]][place[1]] for place in open_places}
        for _ in range(self.tries):
            shown = [
                perturb(
                    words[at],
                    int(rng.integers(1, MOST + 1)),
                    float(rng.uniform(self.least_n, 1)),
                    self.table,
                    rng,
                )
                for at in open_places
            ]
            legible = self._legible([words[at] for at in open_places], shown, rng)
            for (text, place), perturbed, good in zip(open_places, shown, legible, strict=True):
                if good:
                    texts[text][place] = perturbed
            open_places = [at for at, good in zip(open_places, legible, strict=True) if not good]
            if not open_places:
                break
        return {self.judge: [" ".join(text) for text in texts]}

    def _legible(self, words: list[str], shown: list[str], rng: np.random.Generator) -> np.ndarray:
        if self.judge == "annotators":
            return self.reader.judge(words, shown, rng)[0]
        import torch

        found = np.zeros(len(words), bool)
        short = [row for row, word in enumerate(words) if len(word) <= self.longest]
        if short:
            cells = self.model.inputs([words[row] for row in short], [shown[row] for row in short])
            with torch.inference_mode():
                parts = [self.model(part.to(self.context.device)).cpu() for part in cells.split(256)]
            found[short] = torch.cat(parts).numpy() > 0
        return found


@method("visual-perturbations", task="legible-attack")
class VisualPerturbations(Method[AttackWork, Attacked]):
    """The generator at given strengths, legible or not."""

    k: tuple[int, ...] = (1, 1, 1, 5, 20, 50, 50)
    """Largest ranks of the strengths."""
    n: tuple[float, ...] = (0.3, 0.6, 1.0, 0.6, 0.6, 0.6, 1.0)
    """Shares of exchanged characters, one for each of `k`."""
    space: str = "imgdot"
    """Space of the neighbours."""

    def prepare(self, work: AttackWork) -> None:
        """Find the neighbours.

        Raises:
            RequestError: there are not as many `k` as `n`.
        """
        if len(self.k) != len(self.n):
            raise RequestError(f"visual-perturbations has {len(self.k)} values of k and {len(self.n)} of n")
        self.table = neighbours(self.space)

    def run(self) -> Attacked:
        """Every word of every text, at each strength."""
        found = {}
        for k, n in zip(self.k, self.n, strict=True):
            rng = self.context.rng("attack", k, repr(n))
            found[f"k={k} n={n}"] = changed(
                self.work.test,
                lambda word, draw, k=k, n=n: perturb(word, k, n, self.table, draw),
                rng,  # type: ignore[misc]
            )
        return found
