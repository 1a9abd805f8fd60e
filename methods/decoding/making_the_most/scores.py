"""Scores of what methods bring, one function for each task of `tasks.py`."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from harness.errors import BadOutput
from harness.method import Measurement, Series
from methods.decoding.making_the_most.chain import Chain, contaminated, entropy, global_mode
from methods.decoding.making_the_most.few_shot import Episodes
from methods.decoding.making_the_most.modes import threshold
from methods.decoding.making_the_most.sentences import dictionary_share, repeated
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


def of_modes(work: ModeWork, output: Strings) -> Measurement:
    """Log probabilities, distances from the exact modes, and what the strings look like.

    Raises:
        BadOutput: a string is missing, or its log P is not that of the model.
    """
    wanted = {(length, beam) for length in work.lengths for beam in work.beams}
    if set(output) != wanted:
        raise BadOutput(f"strings were found for {sorted(output)}, asked for were {sorted(wanted)}")
    for found in output.values():
        if not math.isclose(work.chain.log_probability(found.string), found.log_p, abs_tol=1e-6):
            raise BadOutput(f"log P of {found.string} is not {found.log_p}")
    texts = [work.chain.spell(found.string) for found in output.values()]
    series = {
        f"length {length}": Series(
            list(work.beams), [output[length, beam].log_p for beam in work.beams], "beam", "log P in nats"
        )
        for length in work.lengths
    }
    return Measurement(
        {
            "log_probability": float(np.mean([found.log_p for found in output.values()])),
            "gap": float(np.mean([work.exact[length] - f.log_p for (length, _), f in output.items()])),
            "satisfied": float(np.mean([len(f.string) == n + 1 for (n, _), f in output.items()])),
            "degenerate": float(np.mean([text == "" for text in texts])),
            "dictionary_share": float(np.mean([dictionary_share(text, work.words) for text in texts])),
            "repetition": float(np.mean([repeated(text) for text in texts])),
        },
        series,
    )


def of_threshold(law: Chain, output: float, share: float) -> dict[str, float]:
    """A share of noise against e / (1 - e) = max P of the law, and whether the mode at `share` is empty.

    Raises:
        BadOutput: not a share.
    """
    if not 0 < output < 1:
        raise BadOutput(f"{output} is not a share of noise")
    closed = threshold(law, 500)
    mode, _ = global_mode(contaminated(law, share), 500)
    return {
        "relative_error": abs(output - closed) / closed,
        "log10_threshold": math.log10(output),
        "log10_typical": -entropy(law) / math.log(10),
        "empty_at_share": float(mode == (law.end,)),
    }


def of_strings(work: NeuralModeWork, output: Strings, repetition: int) -> dict[str, float]:
    """Log probabilities of the strings that fulfil the condition; the least finite float where none does.

    Args:
        work: what was asked.
        output: what was found.
        repetition: a string that has so many tokens in a row twice does not fulfil it; 0: it may have them.

    Raises:
        BadOutput: a string is missing.
    """
    if len(output) != len(work.lengths) * len(work.beams):
        raise BadOutput(f"{len(output)} strings were found, not one for each length and beam width")
    fits = {
        key: len(found.string) == key[0] + 1
        and not (repetition and repeated(found.string[:-1], repetition) > 0)
        for key, found in output.items()
    }
    good = [found.log_p for key, found in output.items() if fits[key]]
    return {
        "log_probability": float(np.mean(good)) if good else -float(np.finfo(np.float32).max),
        "satisfied": float(np.mean(list(fits.values()))),
        "degenerate": float(np.mean([len(found.string) == 1 for found in output.values()])),
        "repetition": float(np.mean([repeated(f.string[:-1], 4) for f in output.values()])),
    }


def of_segments(work: SegmentWork, output: Nats) -> dict[str, float]:
    """Nats per byte of each domain.

    Raises:
        BadOutput: a domain is missing, or much of its text was not scored.
    """
    if set(output.nats) != set(work.domains):
        raise BadOutput(f"scored were {sorted(output.nats)}, asked for were {sorted(work.domains)}")
    for name, piece in work.domains.items():
        if output.bytes[name] < 0.9 * len(piece.scored):
            raise BadOutput(f"only {output.bytes[name]} of {len(piece.scored)} bytes of '{name}' were scored")
    return {name: output.nats[name] / output.bytes[name] for name in work.domains}


def of_labels(work: Episodes, output: Tensor) -> dict[str, float]:
    """Share of the queries with the right label.

    Raises:
        BadOutput: not one label for each query.
    """
    if output.shape != (len(work),):
        raise BadOutput(f"{tuple(output.shape)} labels for {len(work)} queries")
    return {"accuracy": float(np.mean(output.cpu().numpy() == np.array(work.answers)))}


def of_reading(work: ReadingWork, output: Reading) -> dict[str, float]:
    """Nats per byte, and what the method says of its cost.

    Raises:
        BadOutput: much of the text was not read.
    """
    if output.bytes < 0.9 * len(work.held_out):
        raise BadOutput(f"only {output.bytes} of {len(work.held_out)} bytes were read")
    return {
        "nats_per_byte": output.nats / output.bytes,
        "flops_per_token": output.flops_per_token,
        "training_memory": float(output.training_memory),
        "inference_memory": float(output.inference_memory),
    }


def of_translations(work: TranslationWork, output: Translations) -> dict[str, float]:
    """Exact match, BLEU, and what the method measured in tokens.

    Raises:
        BadOutput: not one output for each source.
    """
    if len(output.texts) != len(work.test):
        raise BadOutput(f"{len(output.texts)} outputs for {len(work.test)} sources")
    from sacrebleu.metrics import BLEU

    wanted = [target for _, target in work.test]
    hits = [a.split() == b.split() for a, b in zip(output.texts, wanted, strict=True)]
    return {
        "validation_loss": output.validation_loss,
        "token_accuracy": output.token_accuracy,
        "length_accuracy": output.length_accuracy,
        "exact_match": float(np.mean(hits)),
        "bleu": float(BLEU().corpus_score(output.texts, [wanted]).score),
        "passes": output.passes,
    }
