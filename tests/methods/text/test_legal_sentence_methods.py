"""The splitters of the legal paper as methods, and the tasks that only this paper has."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BadOutput
from harness.testing import prepared, run_once
from methods.text import sentence_data
from methods.text.legal_sentence_boundaries import baselines, isolation
from methods.text.legal_sentence_boundaries.method import LegalPunkt
from methods.text.legal_sentence_boundaries.punkt_tables import legal_abbreviations
from methods.text.legal_sentence_boundaries.tasks import (
    PASSAGE,
    IsolatedSplitting,
    SegmentationSweep,
    aic_excess,
)
from methods.text.tasks import SentenceBoundaries, Texts
from tests.conftest import needs_data

OPINIONS = SentenceBoundaries(corpus="opinions")
BARE = {"tables": "empty", "abbreviations": "none"}


@pytest.mark.parametrize(
    "option", [{}, {"trim": True}, {"memories": "warm"}, {"document_memory": 9}, {"memory": 0}]
)
def test_punkt_on_made_up_opinions(option):
    measured = run_once(LegalPunkt(**BARE, **option), OPINIONS).metrics
    assert measured["recall_stripped"] > 0.9
    if "trim" in option:
        assert measured["f1_raw"] == measured["f1_stripped"]
    else:
        assert measured["recall_raw"] < 0.6


def test_the_list_of_legal_abbreviations_raises_precision():
    pytest.importorskip("charboundary")
    words = legal_abbreviations()
    assert {"U.S.", "F.Supp."} <= set(words)
    with_list = run_once(LegalPunkt(tables="empty"), OPINIONS).metrics
    without = run_once(LegalPunkt(**BARE), OPINIONS).metrics
    assert with_list["precision_stripped"] > without["precision_stripped"] + 0.1


@needs_data("gutenberg-novels")
def test_trained_tables_are_made_once(tmp_path):
    method = LegalPunkt(training_characters=150_000, abbreviations="none")
    run_once(method, OPINIONS, cache=tmp_path)
    assert "mr" in method.splitter.tables.abbreviations
    made = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.suffix != ".lock"}
    run_once(LegalPunkt(training_characters=150_000, abbreviations="none"), OPINIONS, cache=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.suffix != ".lock"} == made


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_dealing_keeps_the_order_and_balances(lengths, parts):
    texts = [str(i % 10) * n for i, n in enumerate(lengths)]
    dealt = baselines.deal(texts, parts)
    assert len(dealt) == parts
    assert [text for part in dealt for text in part] == texts
    most = max(sum(map(len, part)) for part in dealt)
    assert most <= sum(lengths) / parts + max(lengths, default=0)


@pytest.mark.slow
def test_processes_share_the_documents():
    pytest.importorskip("nupunkt")
    alone = prepared(baselines.Nupunkt(), OPINIONS).run()
    shared = prepared(baselines.Nupunkt(processes=2), OPINIONS)
    try:
        assert shared.run() == alone
    finally:
        shared.pool.shutdown()


def test_a_package_alone():
    pytest.importorskip("nupunkt")
    measured = run_once(baselines.IsolatedPackage(), IsolatedSplitting()).metrics
    assert measured["succeeded"] == 1
    assert measured["sentences"] == 2


def test_a_package_that_needs_another_does_not_work_alone(tmp_path):
    pytest.importorskip("charboundary")
    assert {"scikit-learn", "numpy", "scipy"} <= isolation.closure(["charboundary"])
    isolation.link(["charboundary"], tmp_path)
    assert (tmp_path / "charboundary").is_dir()
    assert not (tmp_path / "sklearn").exists()
    assert isolation.count_sentences("charboundary", tmp_path, PASSAGE, 60) is None
    assert IsolatedSplitting().score(PASSAGE, None) == {"succeeded": 0.0, "sentences": 0.0}


def test_laws_are_told_apart():
    x = np.linspace(0.6, 1.0, 9)
    noise = 1e-3 * np.sin(np.arange(9) * 2.4)
    assert aic_excess(x, 0.5 - 0.4 * x + noise) > 5
    assert aic_excess(x, np.exp(4 - 9 * x) + noise) < -5


def test_fragmentation_against_precision():
    documents = tuple(sentence_data.opinions(documents=4))
    task = SegmentationSweep(chunk=1)
    rough = [
        [(i, min(i + step, len(d.text))) for i in range(0, len(d.text), step)]
        for d in documents
        for step in (30,)
    ]
    mixed = [[*d.spans[: len(d.spans) // 2], *[s for s in r if s[0] > d.spans[len(d.spans) // 2][0]]]
             for d, r in zip(documents, rough, strict=True)]  # fmt: skip
    better = [[*d.spans[: -len(d.spans) // 4], *[s for s in r if s[0] > d.spans[-len(d.spans) // 4][0]]]
              for d, r in zip(documents, rough, strict=True)]  # fmt: skip
    gold = [list(d.spans) for d in documents]
    measured = task.score(Texts(documents), [rough, mixed, better, gold])
    assert measured.metrics["spearman"] == pytest.approx(-1)
    assert measured.series["fragmentation"].y[-1] == 0
    with pytest.raises(BadOutput, match="four"):
        task.score(Texts(documents), [gold])


@needs_data("legal-sbd")
@pytest.mark.slow
def test_the_published_forest_at_its_thresholds():
    pytest.importorskip("charboundary")
    method = baselines.CharBoundaryThresholds(thresholds=(0.1, 0.4, 0.7, 0.9), returns="spans")
    prepared(method, SegmentationSweep())
    sets = [{(i, end) for i, spans in enumerate(s) for _, end in spans} for s in method.run()]
    assert all(stricter < looser for looser, stricter in pairwise(sets))


@pytest.mark.parametrize("runtime", ["scikit-learn", "onnx"])
def test_the_published_forest(runtime):
    pytest.importorskip("charboundary")
    if runtime == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("skl2onnx")
    method = baselines.CharBoundary(runtime=runtime)
    measured = run_once(method, OPINIONS).metrics
    assert measured["recall_stripped"] > 0.5
    assert method.run() == method.run()
    trimmed = run_once(baselines.CharBoundary(runtime=runtime, trim=True), OPINIONS).metrics
    assert trimmed["f1_raw"] == pytest.approx(trimmed["f1_stripped"], abs=0.01)
    assert trimmed["f1_stripped"] == pytest.approx(measured["f1_stripped"], abs=0.01)
