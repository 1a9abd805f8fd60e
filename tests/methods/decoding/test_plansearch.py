"""PlanSearch against known answers, brute force over small trees, and the limits in which it is its baselines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import seeding
from harness.errors import BadOutput
from harness.testing import prepared, run_once
from methods.decoding.plansearch import list_programs as world
from methods.decoding.plansearch.baselines import IdeaSearchLists, RepeatedSamplingLists
from methods.decoding.plansearch.list_models import ListCoder, ListIdeas, plan_of
from methods.decoding.plansearch.method import DiversityGain, PlanSearchLists
from methods.decoding.plansearch.proposals import (
    FEATURES,
    KINDS,
    NETS,
    ProposalNet,
    Proposals,
    features,
    load,
    loss,
    part_of,
)
from methods.decoding.plansearch.scores import (
    Judged,
    diversity,
    pair_diversity,
    pass_at,
    pass_metrics,
    relative_gain,
)
from methods.decoding.plansearch.search import (
    CodeModel,
    Grounds,
    IdeaModel,
    Node,
    Tree,
    grow,
    idea_search,
    plan_search,
    repeated_sampling,
    subsets,
)
from methods.decoding.plansearch.tasks import Cell, ListProgramCells, ListPrograms, Proposed

# --- scores ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "expected"), [(1, 0.3), (2, 8 / 15), (5, 11 / 12), (8, 1.0)])
def test_pass_at_k_of_three_in_ten(k, expected):
    assert pass_at(10, 3, k) == pytest.approx(expected, abs=1e-12)
    assert pass_at(10, 0, k) == 0


@given(st.integers(1, 60), st.data())
def test_pass_at_k_counts_the_draws_without_a_right_one(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at(n, c, k) == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-9)


def test_pass_at_k_is_unbiased():
    counts = np.random.default_rng(1).binomial(200, 0.04, 20_000)
    found = np.array([pass_at(200, c, 50) for c in range(201)])[counts]
    assert abs(found.mean() - (1 - 0.96**50)) < 3 * found.std() / np.sqrt(len(found))
    # The plug-in estimate is off by many standard errors.
    plugged = 1 - (1 - counts / 200) ** 50
    assert abs(plugged.mean() - (1 - 0.96**50)) > 6 * plugged.std() / np.sqrt(len(found))


def test_curves_of_pass_at_k_can_cross():
    one, other = np.array([0.001, 0.7, 0.9]), np.array([0.01, 0.1, 0.25])
    at = [[float((1 - (1 - p) ** k).mean()) for k in (1, 400)] for p in (one, other)]
    assert at == [pytest.approx([0.534, 0.777], abs=5e-4), pytest.approx([0.120, 0.994], abs=5e-4)]


def test_public_tests_filter():
    judged = Judged([True, False, False, False], [True, True, False, False])
    assert (judged.passes(1), judged.filtered(1), judged.filtered(2), judged.filtered(20)) == (0.25, 0.5, 1, 1)
    assert Judged([False] * 3, [False] * 3).filtered(1) == 0
    assert Judged([False] * 3, [True] * 3).filtered(20) == 0  # fewer than k, and none is right


def test_a_budget_buys_fewer_of_what_costs_more():
    judged = [Judged([True] + [False] * 99, [True] * 100)]
    cheap, dear = (pass_metrics(judged, 50, 100, cost)["pass_at_budget"] for cost in (2, 10))
    assert (cheap, dear) == (pytest.approx(0.5), pytest.approx(0.1))
    assert pass_metrics(judged, 50, 100, 1e6)["pass_at_budget"] == pytest.approx(0.01)


def test_diversity():
    assert diversity("AAAA") == 0
    assert diversity("ABCD") == 1
    assert diversity("AAB") == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="fewer than two"):
        diversity("A")


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30))
def test_diversity_counts_pairs(ideas):
    assert diversity(ideas) == pytest.approx(pair_diversity([a == b for a, b in combinations(ideas, 2)]))


def test_relative_gain():
    assert relative_gain(0.75, 0.25) == 2


# --- the search ------------------------------------------------------------------------------------


class StubIdeas(IdeaModel[str]):
    """Observations from a function of the problem and what is given; what it was asked is kept."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def observe(self, problems: Sequence[str], given: Sequence[Node], count: int):
        self.asked.append(list(zip(problems, given, strict=True)))
        return [self.answer(problem, node, count) for problem, node in zip(problems, given, strict=True)]

    def sketch(self, problems, nodes):
        return [f"{problem}: {'+'.join(node)}" for problem, node in zip(problems, nodes, strict=True)]

    def fix(self, problems, nodes, sketches):
        return [f"mended {sketch}" for sketch in sketches]


class StubCoder(CodeModel[str]):
    """A program is what it was written from."""

    def pseudocode(self, problems, grounds):
        return [f"pseudo({one.sketch})" for one in grounds]

    def code(self, problems, grounds):
        return list(zip(problems, grounds, strict=True))


def ten(problem, node, count):
    return [str(number) for number in range(1, count + 1)]


def derived(problem, node, count):
    return [f"{problem}:{'&'.join(node)}/{number}" for number in range(count)]


@pytest.mark.parametrize(("count", "most", "expected"), [(10, 2, 56), (10, 1, 11), (10, 3, 176), (0, 2, 1)])
def test_number_of_subsets(count, most, expected):
    found = subsets([str(number) for number in range(count)], most)
    assert len(set(found)) == len(found) == expected
    assert found[0] == ()


def test_tree_of_a_model_that_repeats_itself():
    ideas = StubIdeas(ten)
    nodes = grow(ideas, ["p", "q"], Tree())
    assert [len(own) for own in nodes] == [56, 56]
    assert [len(asked) for asked in ideas.asked] == [2, 112]  # one batch for each layer
    programs = plan_search(ideas, StubCoder(), ["p"], 112, Tree(), np.random.default_rng(0))
    assert len(programs[0]) == len(set(programs[0])) == 112  # two for each node


def test_tree_of_a_model_that_always_finds_something_new():
    ideas = StubIdeas(lambda problem, node, count: derived(f"layer {len(ideas.asked)}", node, count))
    (nodes,) = grow(ideas, ["p"], Tree())
    assert len(nodes) == len(set(map(frozenset, nodes))) == 1 + 55 + 56 * 55
    # A node of the second layer holds the strings of that layer only, all derived from one node of the first.
    layers = [[text.partition(":")[0] for text in node] for node in nodes]
    assert [len(set(layer)) for layer in layers] == [0] + [1] * (len(nodes) - 1)
    second = [node for node, layer in zip(nodes, layers, strict=True) if "layer 2" in layer]
    assert len(second) == 56 * 55
    assert all(len({text.rpartition("/")[0] for text in node}) == 1 for node in second)
    assert len({text.rpartition("/")[0] for node in second for text in node}) == 56


@pytest.mark.parametrize(("layers", "nodes"), [(0, 1), (1, 4), (2, 4 + 3 * 3), (3, 4 + 3 * 3 + 9 * 3)])
def test_layers_and_single_observations(layers, nodes):
    ideas = StubIdeas(derived)
    tree = Tree(observations=3, subset=1, layers=layers)
    assert len(grow(ideas, ["p"], tree)[0]) == nodes
    assert len(ideas.asked) == layers


def test_repeated_and_surplus_observations_are_left_out():
    ideas = StubIdeas(lambda problem, node, count: ["a", "a", "b", "c", "d"])
    (nodes,) = grow(ideas, ["p"], Tree(observations=3, layers=1))
    assert set(nodes) == {(), ("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")}


def written(count=1000, **switches):
    tree = Tree(observations=2, layers=1, **switches)
    found = plan_search(StubIdeas(ten), StubCoder(), ["p"], count, tree, np.random.default_rng(0))
    return [grounds for _, grounds in found[0]]


def test_every_sketch_is_mended_and_becomes_pseudocode():
    found = set(written(8))
    sketches = ["p: ", "p: 1", "p: 2", "p: 1+2"]
    assert {one.sketch for one in found} == {*sketches, *(f"mended {text}" for text in sketches)}
    assert {one.pseudocode for one in found} == {f"pseudo({one.sketch})" for one in found}


def test_switches():
    assert {one.sketch for one in written(fix=False)} == {"p: ", "p: 1", "p: 2", "p: 1+2"}
    assert {one.pseudocode for one in written(pseudocode=False)} == {None}
    bare = set(written(sketch=False, fix=False, pseudocode=False))
    assert bare == {Grounds(), Grounds(("1",)), Grounds(("2",)), Grounds(("1", "2"))}
    with pytest.raises(ValueError, match="nothing to mend"):
        Tree(sketch=False)


def test_programs_come_in_random_order_and_go_round():
    once = written(8)
    assert written(20) == (once * 3)[:20]
    assert written(3) == once[:3]
    nodes = [[one.observations for one in written(8)] for _ in range(2)]
    assert nodes[0] == nodes[1] != sorted(nodes[0])
    orders = {
        tuple(
            grounds.observations
            for _, grounds in plan_search(
                StubIdeas(ten),
                StubCoder(),
                ["p"],
                8,
                Tree(observations=2, layers=1),
                np.random.default_rng(seed),
            )[0]
        )
        for seed in range(10)
    }
    assert len(orders) > 5


def test_only_what_is_asked_for_is_written():
    class Counting(StubIdeas):
        sketched = mended = 0

        def sketch(self, problems, nodes):
            self.sketched += len(nodes)
            return super().sketch(problems, nodes)

        def fix(self, problems, nodes, sketches):
            self.mended += len(nodes)
            return super().fix(problems, nodes, sketches)

    ideas = Counting(derived)
    plan_search(ideas, StubCoder(), ["p", "q"], 10, Tree(), np.random.default_rng(0))
    assert ideas.sketched <= 20
    assert 0 < ideas.mended < 20


def test_without_layers_and_sketch_it_is_direct_sampling():
    tree = Tree(layers=0, sketch=False, fix=False, pseudocode=False)
    ideas = StubIdeas(ten)
    found = plan_search(ideas, StubCoder(), ["p", "q"], 1, tree, np.random.default_rng(0))
    assert found == repeated_sampling(StubCoder(), ["p", "q"], 1)
    assert not ideas.asked


def test_without_layers_it_is_idea_search():
    tree = Tree(layers=0, fix=False, pseudocode=False)
    found = plan_search(StubIdeas(ten), StubCoder(), ["p", "q"], 1, tree, np.random.default_rng(0))
    assert found == idea_search(StubIdeas(ten), StubCoder(), ["p", "q"], 1)


# --- programs over lists ---------------------------------------------------------------------------


def test_operations():
    assert world.run(world.program("reverse", "double", "first 3"), [1, 2, 3, 4]) == (8, 6, 4)
    assert len(world.NAMES) == KINDS == 20
    known = {
        "add 1": [3, -2, 5, 3], "subtract 1": [1, -4, 3, 1], "double": [4, -6, 8, 4], "negate": [-2, 3, -4, -2],
        "square": [4, 9, 16, 4], "floor half": [1, -2, 2, 1], "keep even": [2, 4, 2], "keep odd": [-3],
        "keep positive": [2, 4, 2], "reverse": [2, 4, -3, 2], "sort": [-3, 2, 2, 4], "drop first": [-3, 4, 2],
        "drop last": [2, -3, 4], "first 3": [2, -3, 4], "drop 2": [4, 2], "unique": [2, -3, 4],
        "running sum": [2, -1, 3, 5], "differences": [-5, 7, -2], "absolute value": [2, 3, 4, 2],
        "append mirror": [2, -3, 4, 2, 2, 4, -3, 2],
    }  # fmt: skip
    assert {name: list(world.run(world.program(name), [2, -3, 4, 2])) for name in world.NAMES} == known
    assert world.run(world.program("square"), [50, -9]) == (99, 81)
    assert all(world.run(world.program(name), []) == () for name in world.NAMES)


def test_tasks_are_solved_by_their_programs_and_by_nothing_shorter():
    tasks = world.draw_tasks(40, 1000, test=True)
    for task in tasks:
        assert task.solved_by(task.program)
        assert len(task.inputs) == 12
        assert all(3 <= len(xs) <= 7 and all(-9 <= x <= 9 for x in xs) for xs in task.inputs)
        assert all(task.outputs[:4])
        assert len(set(task.outputs)) >= 8
        assert not any(task.solved_by(shorter) for shorter in combinations(task.program, 3))
    assert tasks == world.draw_tasks(40, 1000, test=True)
    assert not {t.program for t in tasks} & {t.program for t in world.draw_tasks(400, 0, test=False)}


def test_features_of_an_example():
    task = world.ListTask((0,) * 4, ((1, 2, 3),) * 12, ((),) * 11 + ((4,),))
    rows = features([task])
    assert rows.shape == (1, 4, FEATURES)
    assert FEATURES == 68
    shown, made = rows[0, 0, :34], rows[0, 0, 34:]
    assert shown[:3].tolist() == pytest.approx((np.log1p([1, 2, 3]) / np.log(100)).tolist())
    assert shown[14:18].tolist() == [1, -1, 1, 0]
    assert made.tolist() == [0] * 32 + [1, 1]


# --- the proposal net ------------------------------------------------------------------------------


def test_the_net_is_small_and_its_loss_is_what_it_says():
    nets = {name: ProposalNet(recipe.hidden) for name, recipe in NETS.items()}
    assert all(sum(p.numel() for p in net.parameters()) < 300_000 for net in nets.values())
    net = nets["smoke"]
    tasks = world.draw_tasks(3, 5, test=False)
    programs = torch.tensor([task.program for task in tasks])
    plan = part_of(programs, torch.Generator().manual_seed(0))
    z = net.encode(features(tasks))
    state, context = net.begin(z, plan)
    spelled, before = 0.0, torch.full((3,), KINDS)
    for place in range(4):
        state, logits = net.step(state, context, before)
        before = programs[:, place]
        spelled -= float(torch.log_softmax(logits, 1)[range(3), before].detach().mean()) / 4
    p = torch.sigmoid(net.observe(z, plan))
    used = torch.tensor([[float(k in task.program) for k in range(KINDS)] for task in tasks])
    entropy = -float((used * p.log() + (1 - used) * (1 - p).log()).detach().mean())
    assert float(loss(net, features(tasks), programs, plan, 4.0).detach()) == pytest.approx(
        spelled + 4 * entropy, rel=1e-5
    )


def test_given_plans_are_parts_of_programs():
    programs = torch.tensor([[3, 3, 7, 9]] * 4000)
    plans = part_of(programs, seeding.torch_generator(0, "plans"))
    assert set(plans.unique().tolist()) == {0.0, 1.0}
    assert plans.sum(0).nonzero()[:, 0].tolist() == [3, 7, 9]
    # A uniform share keeps one operation with chance 1/2, and one of two equal ones with 1 - 1/3.
    assert plans.mean(0)[[3, 7]].tolist() == pytest.approx([2 / 3, 1 / 2], abs=0.03)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("nets")


@pytest.fixture(scope="module")
def smoke_net(cache) -> ProposalNet:
    return load("smoke", cache)


def test_a_net_is_kept_and_has_learned(smoke_net, cache):
    (kept,) = cache.glob("list-proposals-*[0-9a-f]")
    time = kept.stat().st_mtime_ns
    again = load("smoke", cache)
    assert kept.stat().st_mtime_ns == time
    assert all(torch.equal(a, b) for a, b in zip(smoke_net.parameters(), again.parameters(), strict=True))
    tasks = world.draw_tasks(400, 7, test=True)
    programs = torch.tensor([task.program for task in tasks])
    plan = part_of(programs, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = [float(loss(net, features(tasks), programs, plan, 4.0)) for net in (ProposalNet(64), smoke_net)]
    assert found[1] < 0.85 * found[0]


class Chances(ProposalNet):
    """Fixed log odds of observations, and a decoder that likes the plan."""

    def __init__(self, odds):
        super().__init__(8)
        self.odds = torch.tensor(odds)

    def observe(self, z, given):
        return self.odds.expand(len(z), -1)


def test_observations_are_drawn_without_replacement():
    p = np.full(KINDS, 1e-9)
    p[:3] = 0.6, 0.3, 0.1
    tasks = world.draw_tasks(1, 3, test=True)
    net = Chances(np.log(p / (1 - p)).astype(np.float32))
    draws = 6000
    proposals = Proposals(net, tasks, 0.5, "calibrated", seed=0)
    found = proposals.observations([0] * draws, [frozenset()] * draws, 2)
    share = np.mean([row == [0, 1] for row in found])
    expected = 0.6 * (0.3 / 0.4)
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / draws)
    # What is given is not drawn again; tempered at 1/2 the weights are squares.
    tempered = Proposals(net, tasks, 0.5, "tempered", seed=0)
    found = tempered.observations([0] * draws, [frozenset({0})] * draws, 1)
    expected = 0.09 / 0.10
    assert abs(np.mean([row == [1] for row in found]) - expected) < 4 * np.sqrt(expected * 0.1 / draws)
    assert proposals.symbols == 2 * draws
    # No more than there are.
    assert [len(row) for row in tempered.observations([0], [frozenset(range(17))], 6)] == [3]


def test_plans_hold_each_operation_independently():
    p = np.linspace(0.05, 0.9, KINDS)
    net = Chances(np.log(p / (1 - p)).astype(np.float32))
    proposals = Proposals(net, world.draw_tasks(1, 3, test=True), 0.5, "calibrated", seed=0)
    plans = proposals.plans([0] * 5000)
    share = np.array([[kind in plan for kind in range(KINDS)] for plan in plans]).mean(0)
    assert np.abs(share - p).max() < 5 * 0.5 / np.sqrt(5000)


def test_programs_follow_the_decoder(smoke_net):
    tasks = world.draw_tasks(1, 3, test=True)
    proposals = Proposals(smoke_net, tasks, 0.7, "calibrated", seed=0)
    plan = frozenset({2, 9})
    draws = 4000
    found = proposals.programs([0] * draws, [plan] * draws)
    row = torch.zeros(1, KINDS)
    row[0, [2, 9]] = 1
    with torch.inference_mode():
        state, context = smoke_net.begin(smoke_net.encode(features(tasks)), row)
        state, logits = smoke_net.step(state, context, torch.tensor([KINDS]))
        law = torch.softmax(logits[0] / 0.7, 0).numpy()
    first = np.bincount([code[0] for code in found], minlength=KINDS) / draws
    assert np.abs(first - law).max() < 4.5 * 0.5 / np.sqrt(draws)
    assert proposals.symbols == 4 * draws


def test_a_plan_is_the_union_of_what_its_observations_rest_on(smoke_net):
    proposals = Proposals(smoke_net, world.draw_tasks(2, 3, test=True), 0.3, "calibrated", seed=0)
    ideas = ListIdeas(proposals)
    (nodes, _) = grow(ideas, [0, 1], Tree(observations=6, fix=False, pseudocode=False))
    plans = [plan_of(node) for node in nodes]
    assert len(plans) == len(set(plans)) > 200
    assert max(map(len, plans)) == 4
    singles = [plan for plan in plans if len(plan) == 1]
    assert len(singles) >= 6
    assert ideas.sketch([0], [nodes[-1]]) == [plans[-1]]


def test_the_list_search_without_layers_is_repeated_sampling(smoke_net, cache):
    def first(method, **parameters):
        task = ListPrograms(net="smoke", tasks=5, samples=20, k=20, temperature=0.8)
        method = prepared(method(**parameters), task, cache=cache)
        method.work.samples = 1
        return method.run()

    plan = first(PlanSearchLists, layers=0, sketch=False)
    direct = first(RepeatedSamplingLists)
    assert (plan.programs, plan.symbols) == (direct.programs, direct.symbols)
    assert first(PlanSearchLists, layers=0) == first(IdeaSearchLists)


# --- tasks -----------------------------------------------------------------------------------------


def test_scores_of_list_programs():
    task = ListPrograms(net="smoke", tasks=3, samples=20, k=20, budget=50)
    work = task.load(1000)
    wrong = next(
        code for code in combinations(range(KINDS), 4) if not any(one.solved_by(code, 1) for one in work.tasks)
    )
    own = [one.program for one in work.tasks]
    output = Proposed([[own[0]] * 10 + [wrong] * 10, [wrong] * 20, [own[2], *[wrong] * 19]], 600)
    found = dict(task.score(work, output).metrics)
    assert found["pass_at_1"] == pytest.approx((0.5 + 0 + 0.05) / 3)
    assert found["pass_at_k"] == found["pass_at_20"] == pytest.approx(2 / 3)
    assert found["filtered_pass_at_1"] == pytest.approx(2 / 3)
    assert found["pass_at_budget"] == pytest.approx((pass_at(20, 10, 5) + 0.25) / 3)  # 10 symbols each
    assert found["diversity"] == pytest.approx((200 / 380 + 0 + 38 / 380) / 3 * 1, abs=1e-9)
    with pytest.raises(BadOutput, match="20 programs"):
        task.score(work, Proposed([[wrong] * 20] * 2, 1))
    with pytest.raises(ValueError, match="as many samples"):
        ListPrograms(samples=50, k=100)


def test_searches_over_lists(smoke_net, cache):
    found = {}
    for name, method in {
        "repeated": RepeatedSamplingLists(), "idea": IdeaSearchLists(), "plan": PlanSearchLists(),
        "one layer": PlanSearchLists(layers=1), "single": PlanSearchLists(subset=1),
    }.items():  # fmt: skip
        task = ListPrograms(net="smoke", tasks=10, samples=40, k=40, temperature=0.1)
        found[name] = dict(run_once(method, task, cache=cache).metrics)
    # Observations are distinct whatever the temperature, so that plans must differ and programs follow.
    assert found["plan"]["diversity"] > found["repeated"]["diversity"] + 0.05
    # 22 plans at most in 40 programs: the first ones come again.
    assert found["one layer"]["diversity"] < found["plan"]["diversity"]
    assert found["repeated"]["symbols"] == 4
    assert found["plan"]["symbols"] == pytest.approx(4 + (6 + 22 * 6) / 40, abs=0.1)


def test_cells(smoke_net, cache):
    task = ListProgramCells(net="smoke", tasks=4, samples=20, k=20, temperatures=(0.3, 1.0))
    method = prepared(DiversityGain(), task, cache=cache)
    output = method.run()
    assert len(output) == 6
    assert output == method.run()
    own = [one.program for one in method.work.tasks]
    bad = (0, 0, 0, 0)
    assert not any(one.solved_by(bad, 1) for one in method.work.tasks)

    def cell(solved, kinds):
        """Programs of `kinds` different wrong kinds, and one right program for `solved` of the tasks."""
        rows = [[(0, 0, 0, number % kinds) for number in range(20)] for _ in own]
        for place in range(solved):
            rows[place][0] = own[place]
        return rows

    made = {Cell("repeated-sampling", t): cell(1, 1) for t in (0.3, 1.0)}
    made |= {Cell("idea-search", t): cell(2, 2) for t in (0.3, 1.0)}
    made |= {Cell("plansearch", 0.3): cell(3, 3), Cell("plansearch", 1.0): cell(4, 4)}
    score = dict(task.score(method.work, made).metrics)
    assert score["correlation"] > 0.9
    assert score["cells"] == 6
    assert score["base_pass_at_1"] == pytest.approx(1 / 80)
    with pytest.raises(BadOutput, match="one cell for each"):
        task.score(method.work, {k: v for k, v in made.items() if k.temperature == 1.0})
    with pytest.raises(BadOutput, match="nothing can be predicted"):
        task.score(method.work, {k: cell(0, 1) for k in made})


@pytest.mark.slow
def test_idea_code_models_give_the_same_programs_for_the_same_seed(smoke_net):
    tasks = world.draw_tasks(4, 3, test=True)

    def found():
        proposals = Proposals(smoke_net, tasks, 0.4, "tempered", seed=3)
        tree = Tree(observations=6, fix=False, pseudocode=False)
        return plan_search(
            ListIdeas(proposals), ListCoder(proposals), range(4), 50, tree, np.random.default_rng(1)
        )

    assert found() == found()
