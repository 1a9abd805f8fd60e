"""Optimizer programs: types, functional hash, interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from methods.training.lion.mutation import Mutator
from methods.training.lion.operations import OPERATIONS, Kind, Layout
from methods.training.lion.optimizer import Lion
from methods.training.lion.programs import (
    INPUTS,
    OUTPUTS,
    InvalidProgram,
    Program,
    Statement,
    adamw,
    compiled,
    functional_hash,
    kinds,
    lion,
    live,
    parse,
    without_dead_statements,
)

LAYOUT = Layout((3, 5, 1))


def path_of(program, steps=4, seed=0, dtype=np.float64):
    """Weights after each step of a program along random gradients, (steps, 9)."""
    random = np.random.default_rng(seed)
    update = compiled(program, LAYOUT, dtype)
    w = random.standard_normal(9).astype(dtype)
    m, v, visited = np.zeros_like(w), np.zeros_like(w), []
    with np.errstate(all="ignore"):
        for _ in range(steps):
            delta, m, v = update(w, random.standard_normal(9).astype(dtype), m, v, 0.7)
            w = w - delta
            visited.append(w)
    return np.array(visited)


def random_program(seed, mutations=12):
    mutate = Mutator(np.random.default_rng(seed), longest=25)
    program, digest = adamw(0.01), functional_hash(adamw(0.01))
    for _ in range(mutations):
        program, digest = mutate(program, digest)
    return program


# --- programs --------------------------------------------------------------------------------------------


def test_text_and_program_are_inverse():
    for program in (adamw(0.01), lion(1e-3), random_program(1)):
        assert parse(str(program)) == program
    with pytest.raises(InvalidProgram, match="form"):
        parse("m = g + 1")
    with pytest.raises(InvalidProgram, match="neither"):
        parse("m = add(g, 'x')")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("update = add(g, x)", "'x' is not set"),
        ("update = nothing(g)", "no operation"),
        ("update = add(g)", "takes 2 arguments"),
        ("update = norm(g)", "'update' is not an array"),
        ("m = sign(g)", "'update' is not an array"),
        ("update = sign(g)\nm = sign(lr)", "'m' is not an array"),
        ("x = norm(g)\nupdate = dot(g, x)", "dot does not take"),
        ("update = clip_by_global_norm(g, m)", "clip_by_global_norm does not take"),
        ("update = multiply(g, 1e999)", "not finite"),
    ],
)
def test_abstract_execution_refuses(text, message):
    with pytest.raises(InvalidProgram, match=message):
        kinds(parse(text))


def test_kinds_broadcast_upwards_and_reduce_downwards():
    program = parse(
        "a = norm(g)\nb = multiply(a, lr)\nc = add(b, g)\nd = global_norm(c)\nupdate = multiply(c, d)"
    )
    assert kinds(program) == [Kind.LEAF, Kind.LEAF, Kind.ARRAY, Kind.SCALAR, Kind.ARRAY]


def test_there_are_about_fifty_operations_and_types_agree_with_shapes():
    assert len(OPERATIONS) >= 45
    shapes = {Kind.SCALAR: (), Kind.LEAF: (3,), Kind.ARRAY: (9,)}
    random = np.random.default_rng(0)
    for name, operation in OPERATIONS.items():
        for given_kinds in np.ndindex(*[3] * operation.arity):
            given_ = [Kind(k) for k in given_kinds]
            kind = operation.kind(given_)
            if kind is None:
                continue
            values = [random.uniform(0.1, 0.9, shapes[k])[()] for k in given_]
            with np.errstate(all="ignore"):
                assert np.shape(operation.on(LAYOUT, given_)(*values)) == shapes[kind], (name, given_)


def test_reductions_against_loops_over_tensors():
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, 9))
    parts = [slice(0, 3), slice(3, 8), slice(8, 9)]

    def of(name, *values):
        return OPERATIONS[name].on(LAYOUT, [Kind.ARRAY] * len(values))(*values)

    np.testing.assert_allclose(of("norm", x), [np.linalg.norm(x[p]) for p in parts])
    np.testing.assert_allclose(of("mean", x), [x[p].mean() for p in parts])
    np.testing.assert_allclose(of("std", x), [x[p].std() for p in parts], atol=1e-7)
    np.testing.assert_allclose(of("dot", x, y), [x[p] @ y[p] for p in parts])
    cosines = [x[p] @ y[p] / np.linalg.norm(x[p]) / np.linalg.norm(y[p]) for p in parts]
    np.testing.assert_allclose(of("cosine", x, y), cosines)
    np.testing.assert_allclose(of("global_norm", x), np.linalg.norm(x))
    clip = OPERATIONS["clip_by_global_norm"].on(LAYOUT, [Kind.ARRAY, Kind.SCALAR])
    np.testing.assert_allclose(np.linalg.norm(clip(x, 0.5)), 0.5)
    np.testing.assert_allclose(clip(x, 1e3), x)
    np.testing.assert_allclose(OPERATIONS["interp"].compute(2.0, 4.0, 0.25), 2.5)


# --- hash ------------------------------------------------------------------------------------------------


def renamed(program, suffix="_"):
    """Every variable that is not an input or output gets another name."""
    fixed = {*INPUTS, *OUTPUTS}

    def name(x):
        return x if not isinstance(x, str) or x in fixed else x + suffix

    return Program(tuple(Statement(name(s.target), s.op, tuple(map(name, s.args))) for s in program.statements))


def reordered(program, random):
    """Neighbours that do not depend on one another change places, at random."""
    statements = list(program.statements)
    for _ in range(40):
        i = int(random.integers(len(statements) - 1)) if len(statements) > 1 else 0
        if i + 1 < len(statements):
            a, b = statements[i], statements[i + 1]
            if a.target != b.target and a.target not in b.variables and b.target not in a.variables:
                statements[i], statements[i + 1] = b, a
    return Program(tuple(statements))


def with_dead_statements(program, random):
    """Statements that set unused variables, at random places."""
    statements = list(program.statements)
    for i in range(5):
        place = int(random.integers(len(statements) + 1))
        statements.insert(place, Statement(f"unused{i}", "cosh", ("g",)))
    return Program(tuple(statements))


def with_swapped_arguments(program):
    return Program(
        tuple(
            Statement(s.target, s.op, s.args[::-1]) if OPERATIONS[s.op].commutes else s
            for s in program.statements
        )
    )


def with_swapped_states(program):
    other = {"m": "v", "v": "m"}

    def name(x):
        return other.get(x, x) if isinstance(x, str) else x

    return Program(tuple(Statement(name(s.target), s.op, tuple(map(name, s.args))) for s in program.statements))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31))
def test_hash_is_of_what_is_computed_not_of_how_it_is_written(seed):
    random = np.random.default_rng(seed)
    program = random_program(seed)
    wanted, path = functional_hash(program), path_of(program)
    for other in (
        renamed(program),
        reordered(program, random),
        with_dead_statements(program, random),
        with_swapped_arguments(program),
        with_swapped_states(program),
        without_dead_statements(program),
    ):
        assert functional_hash(other) == wanted
        np.testing.assert_array_equal(path_of(other), path)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), place=st.integers(0, 100))
def test_hash_changes_with_every_constant_that_matters(seed, place):
    program = random_program(seed)
    matter = [
        (number, i)
        for number in live(program)[0]
        for i, arg in enumerate(program.statements[number].args)
        if isinstance(arg, float)
    ]
    if not matter:
        return
    number, i = matter[place % len(matter)]
    old = program.statements[number]
    args = (*old.args[:i], old.args[i] * 1.5 + 0.1, *old.args[i + 1 :])
    changed = (
        *program.statements[:number],
        Statement(old.target, old.op, args),
        *program.statements[number + 1 :],
    )
    assert functional_hash(Program(changed)) != functional_hash(program)


def test_arguments_that_do_not_commute_count():
    one, other = parse("update = subtract(g, w)"), parse("update = subtract(w, g)")
    assert functional_hash(one) != functional_hash(other)


def test_a_state_that_is_overwritten_before_it_is_read_does_not_matter():
    base = parse("m = interp(g, v, 0.9)\nv = interp(g, m, 1.1)\nupdate = sign(m)")
    more = Program((*base.statements, Statement("m", "cosh", ("update",))))
    assert live(more) == ([0, 1, 2], ["v"])
    assert functional_hash(more) == functional_hash(base)
    assert without_dead_statements(more) == base


def test_a_state_that_is_read_in_the_next_step_matters():
    base = parse("update = interp(g, m, 0.9)\nm = interp(g, m, 0.99)")
    other = parse("update = interp(g, m, 0.9)\nm = interp(g, m, 0.98)")
    assert functional_hash(base) != functional_hash(other)
    assert live(base) == ([0, 1], ["m"])


# --- interpreter ------------------------------------------------------------------------------------------


def test_lion_as_a_program_is_the_optimizer():
    rate, weight_decay = 0.01, 0.3
    path = path_of(lion(rate, weight_decay), steps=20)
    random = np.random.default_rng(0)
    parameter = nn.Parameter(torch.from_numpy(random.standard_normal(9)))
    optimizer = Lion([parameter], lr=0.7 * rate, weight_decay=weight_decay)
    for expected in path:
        parameter.grad = torch.from_numpy(random.standard_normal(9))
        optimizer.step()
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12, atol=1e-14)


def test_adamw_as_a_program_is_adamw_without_bias_correction():
    path = path_of(adamw(0.01, 0.3), steps=10)
    random = np.random.default_rng(0)
    w, m, v = random.standard_normal(9), np.zeros(9), np.zeros(9)
    for expected in path:
        g = random.standard_normal(9)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.7 * 0.01 * (m / (np.sqrt(v) + 1e-8) + 0.3 * w)
        np.testing.assert_allclose(w, expected, rtol=1e-12)


def test_values_keep_the_dtype_of_the_weights():
    update = compiled(adamw(0.01), LAYOUT)
    ones = np.ones(9, np.float32)
    assert {x.dtype for x in update(ones, ones, ones, ones, 0.3)} == {np.dtype(np.float32)}


def test_compiled_programs_do_not_write_to_their_inputs():
    for seed in range(30):
        update = compiled(random_program(seed), LAYOUT)
        inputs = [np.full(9, x, np.float32) for x in (0.1, 0.2, 0.3, 0.4)]
        with np.errstate(all="ignore"):
            results = update(*inputs, 0.5)
        assert [float(x[0]) for x in inputs] == [np.float32(x) for x in (0.1, 0.2, 0.3, 0.4)]
        assert not any(np.may_share_memory(r, x) for r in results for x in inputs[:2])
