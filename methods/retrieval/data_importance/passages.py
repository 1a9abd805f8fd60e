"""Question answering over retrieved passages with a causal language model, one passage at a time."""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness import cache, data
from harness.errors import MissingModel, Unavailable
from harness.seeding import rng
from methods.retrieval.data_importance.retrievals import Retrievals

INSTRUCTION = "Answer the question with a short phrase from the passage and nothing else."
ANSWER_TOKENS = 16


@dataclass(frozen=True)
class Reader:
    """A causal language model that answers a question from one passage, greedily.

    Attributes:
        model: Hugging Face id or local folder.
        device: torch device.
        dtype: number format of the weights.
        batch: prompts that are answered at the same time.
    """

    model: str
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    batch: int

    def answers(self, asked: Sequence[tuple[str, str]]) -> list[str]:
        """The answers to (passage, question) pairs, cached by model, format and prompts.

        Raises:
            MissingModel: the weights cannot be loaded.
            Unavailable: there is no CUDA device where one is asked for.
        """
        prompts = [f"{INSTRUCTION}\n\nPassage: {p}\n\nQuestion: {q}\nAnswer:" for p, q in asked]
        recipe = {
            "model": self.model,
            "dtype": self.dtype,
            "tokens": ANSWER_TOKENS,
            "prompts": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
        }

        def make(unfinished: Path) -> None:
            unfinished.write_text(json.dumps(self._generate(prompts)))

        path = cache.artefact("passage-answers", recipe, make)
        return [str(answer) for answer in json.loads(path.read_text())]

    def _generate(self, prompts: list[str]) -> list[str]:
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise Unavailable("the language model is to answer on cuda, but there is no CUDA device")
        tokenizer, model = self._load()
        if tokenizer.chat_template is not None:
            prompts = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True
                )
                for p in prompts
            ]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # little padding in a batch
        answers = [""] * len(prompts)
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            tokens = tokenizer([prompts[i] for i in rows], return_tensors="pt", padding=True)
            tokens = {k: tokens[k].to(self.device) for k in ("input_ids", "attention_mask")}
            with torch.inference_mode():
                out = model.generate(
                    **tokens,
                    max_new_tokens=ANSWER_TOKENS,
                    do_sample=False,
                    pad_token_id=tokenizer.pad_token_id,
                )
            texts = tokenizer.batch_decode(out[:, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
            for i, text in zip(rows, texts, strict=True):
                answers[i] = text.strip().split("\n")[0]
        return answers

    def _load(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model, padding_side="left")
            model = AutoModelForCausalLM.from_pretrained(self.model, dtype=getattr(torch, self.dtype))
        except (OSError, ValueError) as error:
            raise MissingModel(
                f"the language model '{self.model}' cannot be loaded: {str(error).splitlines()[0]}"
            ) from error
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer, model.to(self.device).eval()


def normalised(answer: str) -> str:
    """Lower case without punctuation, articles and extra spaces, as answers to SQuAD are compared."""
    kept = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def replaced(passage: str, answers: Sequence[str], wrong: str) -> str:
    """The passage with every occurrence of one of the answers turned into a wrong one."""
    longest_first = sorted(answers, key=len, reverse=True)
    pattern = "|".join(re.escape(answer) for answer in longest_first)
    return re.sub(pattern, lambda _: wrong, passage, flags=re.IGNORECASE)


def retrieve(
    reader: Reader,
    *,
    questions: int,
    sources: int,
    corrupted: float,
    coverage: float,
    depth: int,
    seed: int,
) -> Retrievals:
    """Copies of passages from many sources and the reader's answer to each.

    Args:
        reader: answers from one passage.
        questions: how many, drawn from all.
        sources: S. Each holds every passage with the probability `coverage`; a passage that nobody
            holds goes to one source.
        corrupted: this share of the sources holds passages in which the answer to the question is
            replaced by the answer to another question, the same in all sources.
        coverage: share of the passages that a source holds.
        depth: passages retrieved for a question, ranked by the cosine of TF-IDF vectors.
        seed: draws the questions, holders, corrupted sources and wrong answers. The wrong answers and
            holders do not depend on `corrupted`.

    Raises:
        ValueError: more questions are asked for than there are.
    """
    texts = [str(line["text"]) for line in _lines("passages.jsonl.gz")]
    pool = _lines("questions.jsonl.gz")
    if questions > len(pool):
        raise ValueError(f"{questions} questions are asked for, but there are {len(pool)}")
    order = rng(seed, "questions").permutation(len(pool))
    asked = [pool[i] for i in order[:questions]]
    ranking = _ranking([str(q["text"]) for q in asked], texts, depth)

    holds = rng(seed, "holders").random((len(texts), sources)) < coverage
    orphans = np.flatnonzero(~holds.any(axis=1))
    holds[orphans, rng(seed, "orphans").integers(0, sources, len(orphans))] = True
    bad = np.zeros(sources, dtype=bool)
    bad[rng(seed, "corrupted").permutation(sources)[: round(corrupted * sources)]] = True

    wrong = _wrong_answers(asked, pool, rng(seed, "wrong answers"))
    prompts: dict[tuple[str, str], int] = {}
    variants = np.empty((questions, len(ranking[0]), 2), dtype=np.int64)  # prompt of the clean, corrupted text
    for row, question in enumerate(asked):
        for rank, passage in enumerate(ranking[row]):
            clean = texts[passage]
            for kind, text in enumerate((clean, replaced(clean, question["answers"], wrong[row]))):
                variants[row, rank, kind] = prompts.setdefault((text, question["text"]), len(prompts))
    answers = [normalised(answer) for answer in reader.answers(list(prompts))]
    return _copies(variants, ranking, holds, bad, answers, [q["answers"] for q in asked])


def _copies(
    variants: NDArray[np.int64],
    ranking: NDArray[np.int64],
    holds: NDArray[np.bool_],
    bad: NDArray[np.bool_],
    answers: list[str],
    right: list[list[str]],
) -> Retrievals:
    """One item per retrieved passage and source that holds it, by rank and then by source."""
    numbers: dict[str, int] = {}
    answer = np.array([numbers.setdefault(a, len(numbers)) for a in answers])
    count = holds.shape[1]
    items = []
    for row, passages in enumerate(ranking):
        goal = [numbers[normalised(a)] for a in right[row] if normalised(a) in numbers]
        rank, source = np.nonzero(holds[passages])
        given = answer[variants[row, rank, bad[source].astype(np.int64)]]
        items.append((source, given, np.isin(given, goal)))
    width = max(len(source) for source, _, _ in items)
    sources = np.full((len(items), width), count, dtype=np.int32)
    voted = np.full((len(items), width), -1, dtype=np.int32)
    utilities = np.zeros((len(items), width), dtype=np.uint8)
    for row, (source, given, correct) in enumerate(items):
        n = len(source)
        sources[row, :n], voted[row, :n], utilities[row, :n] = source, given, correct
    return Retrievals(sources, utilities, count, voted)


def _lines(filename: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.text("xquad-en", filename).splitlines() if line]


def _ranking(questions: list[str], texts: list[str], depth: int) -> NDArray[np.int64]:
    """The best passages for each question, best first: int64[N, depth]."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    documents = vectorizer.fit_transform(texts)
    scores = (vectorizer.transform(questions) @ documents.T).toarray()
    return np.argsort(-scores, axis=1, kind="stable")[:, :depth]


def _wrong_answers(
    asked: list[dict[str, Any]], pool: list[dict[str, Any]], generator: np.random.Generator
) -> list[str]:
    """For each question the answer to another one that is not right for it."""
    wrong = []
    for question in asked:
        right = {normalised(a) for a in question["answers"]}
        while normalised(other := pool[generator.integers(len(pool))]["answers"][0]) in right:
            pass
        wrong.append(other)
    return wrong
