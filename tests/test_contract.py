"""Every row of the catalog against what the library promises of all, driven by the row's fields.

What a row's rule is stands in the tests of its module; here stands what all rows share. A
compilation takes longer than any of these programs: a row has three, and its tests, which
conftest.py puts together, share them. With RELAXJAX_X64=0 they run in float32, as most users do;
those marked once do not depend on it.
"""

import ast
import functools
import inspect
import itertools
import json
import math
import os
import pathlib
import pickle
import re
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from rows import FEW, ONE_OF_EACH, ROWS, mostly_thorough, row
from scipy import stats

import relaxjax
from relaxjax.catalog import ESTIMATORS, REQUIRED

X64 = jax.config.jax_enable_x64
# All rows as users compile them in float32, and a few on another JAX.
pytestmark = [pytest.mark.optimized] if FEW or not X64 else []
DTYPE = "float64" if X64 else "float32"
TOLERANCE = 1e-10 if X64 else 2e-4
DTYPES = mostly_thorough([DTYPE, "bfloat16", "float16"] if X64 else [DTYPE], [DTYPE])
KEY = jax.random.key(0)
# Params of a law by its row or its law: ordinary ones, extreme ones, and, where the law has them,
# masks (entries that never change).
SIMPLE = ["bernoulli", "correlated", "categorical", "gates", "simplex", "counts"]
ROWS_OF_3 = [[0.3, -1.2, 0.8], [0.1, 2.0, -0.4]]
ITEMS = [[0.3, -1.2, 0.8, 0.5], [0.1, 2.0, -0.4, 0.7]]
ONE_OF_6 = [0.3, -1.2, 0.8, 0.1, 2.0, -0.4]
LOGITS = {
    **dict.fromkeys(SIMPLE, ROWS_OF_3),
    **dict.fromkeys(["top_k", "subsets"], ITEMS),
    "categorical/unordered_set": ONE_OF_6,
}
SURE = [[0.3, -np.inf, 0.8], [np.inf, 2.0, -0.4]]
IMPOSSIBLE = [[0.3, -np.inf, 0.8], [0.1, 2.0, -np.inf]]
FEWER_ITEMS = [[0.3, -np.inf, 0.8, 0.5], [0.1, 2.0, -np.inf, 0.7]]
MASKED = {
    **dict.fromkeys(["bernoulli", "correlated", "gates"], SURE),
    **dict.fromkeys(["categorical", "counts/generalized_gumbel_softmax"], IMPOSSIBLE),
    **dict.fromkeys(["top_k", "subsets"], FEWER_ITEMS),
    "categorical/unordered_set": [0.3, -np.inf, 0.8, 0.1, -np.inf, -0.4],
}
FAR = [[1e4, -1e4, 0.0], [-1e4, 5.0, 1e4]]
EXTREME = {
    **dict.fromkeys(SIMPLE, FAR),
    **dict.fromkeys(["top_k", "subsets"], [[1e4, -1e4, 0.0, 1e4], [-1e4, 5.0, 1e4, -5.0]]),
    "categorical/unordered_set": [1e4, -1e4, 0.0, 5.0, -1e4, 1e4],
}
# Laws and rows whose params are rows of items.
OF_ROWS = {*("correlated", "categorical", "top_k", "subsets"), "counts/generalized_gumbel_softmax"}
# The real hyperparameters on which the forward law depends although it is discrete.
CHANGES_THE_LAW = {("categorical/decoupled_straight_through", "forward_temperature")}
# What an error calls the parameter of a row, where not logits.
PARAMETER = {
    "gates/gaussian": "mean",
    "simplex/invertible_gaussian": "mean",
    "simplex/logistic_normal": "mean",
    "counts/generalized_gumbel_softmax": "log_probs",
    "counts/poisson": "log_rate",
}
# Every joint sample of the law, by NumPy.
STATES = {
    **dict.fromkeys(["bernoulli", "correlated"], lambda shape: oracles.bits(math.prod(shape))),
    "categorical": lambda shape: oracles.one_hots(math.prod(shape[:-1]), shape[-1]),
    "subsets": lambda shape: np.array(
        list(itertools.product(oracles.k_hots(shape[-1], 2), repeat=math.prod(shape[:-1])))
    ),
}


def law(name):
    return ESTIMATORS[name].law


def states(name):
    shape = params(name).shape
    return STATES[law(name)](shape).reshape(-1, *shape)


def has(name, table):
    return name in table or law(name) in table


def params(name, dtype=DTYPE, table=LOGITS):
    return jnp.asarray(table.get(name, table.get(law(name))), dtype)


def real(name):
    """The row's real hyperparameters that are one number."""
    return [h for h, x in row(name).real.items() if x is not None and np.ndim(x) == 0]


def defaults(name, dtype=DTYPE):
    return {h: jnp.asarray(row(name).real[h], dtype) for h in real(name)}


def any_sign(h):
    return h in ("scale", "baseline")


def is_score(name):
    return ESTIMATORS[name].kind == "score"


def is_logarithmic(name):
    """Whether a sample is infinite where its params are."""
    return "log_" in name or "logit_" in name


def weights(shape, dtype=DTYPE):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def f(z, w=None):
    """A smooth, bounded function with no symmetry, in which entries interact; infinite entries of a
    logarithmic law count as 0."""
    z = jnp.where(jnp.isinf(z), 0, z)
    w = weights(z.shape, z.dtype) if w is None else jnp.asarray(w, z.dtype)
    small = jnp.asarray(0.3, z.dtype)
    y = jnp.tanh((z + small) * w + small)
    return jnp.sum(y * y) + jnp.sum(y) ** 2


@functools.cache
def sample_shape(name):
    """The shape of what f sees."""
    shapes = []
    f = lambda z: shapes.append(z.shape) or jnp.sum(z)
    jax.eval_shape(lambda l: row(name)(KEY, f, l), params(name))
    return shapes[0]


def value_and_grad(name, key, logits):
    return jax.value_and_grad(lambda l: row(name)(key, f, l))(logits)


def assert_close(actual, expected, tolerance=TOLERANCE):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        actual,
        expected,
    )


# ------------------------------------------------------------------------- the programs of a row


class Outcome(NamedTuple):
    """All that one call of a row gives.

    Fields:
      value: its scalar.
      logits, hyperparameters, w: the gradients, w being what f closes over.
      sample: what f saw; of a score row, whose f is under a vmap that nothing may leak from, value.
    """

    value: Any
    logits: Any
    hyperparameters: Any
    w: Any
    sample: Any


def outcome(name, f, key, logits, hyperparameters, w):
    def loss(logits, hyperparameters, w):
        seen = []
        f_w = lambda z: seen.append(jax.lax.stop_gradient(z)) or f(z, w)
        value = row(name, **hyperparameters)(key, f_w, logits)
        return value, value if is_score(name) else seen[0]

    run = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    (value, sample), gradients = run(logits, hyperparameters, w)
    return Outcome(value, *gradients, sample)


class Compiled:
    """The outcome of one call as a program, which counts its traces and the calls of f that run."""

    def __init__(self, name):
        self.name, self.traces, self.calls = name, 0, 0
        self.run = jax.jit(self.outcome)

    def outcome(self, *args):
        self.traces += 1
        return outcome(self.name, self.f, *args)

    def f(self, z, w):
        # The callback takes z, batched by a vmap: without it, it would run once for all.
        jax.debug.callback(self.count, jnp.sum(z))
        return f(z, w)

    def count(self, _):
        self.calls += 1


@functools.lru_cache(maxsize=4)
def compiled(name):
    return Compiled(name)


def one(name, key=KEY, logits=None, w=None, **hyperparameters):
    """The outcome of one call; what is not given has its default."""
    return compiled(name).run(
        key,
        params(name) if logits is None else logits,
        defaults(name) | hyperparameters,
        weights(sample_shape(name)) if w is None else w,
    )


@functools.lru_cache(maxsize=4)
def compiled_many(name):
    return jax.jit(jax.vmap(functools.partial(outcome, name, f)))


MANY = 1_000  # a program of the size that a test asks for would cost more than the rest of these


def filled(rows):
    """The rows, and the last one again up to the size of `many`."""
    rows = jnp.asarray(rows)
    return jnp.concatenate([rows, jnp.broadcast_to(rows[-1:], (MANY - len(rows), *rows.shape[1:]))])


def many(name, keys, logits, w=None, **hyperparameters):
    """The outcomes of a vmap over calls in the dtype of logits: keys, old ones or new, are filled
    up; what has no leading axis is shared, and what is not given has its default."""
    logits = jnp.asarray(logits)
    new = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    each = lambda x, shape: jnp.broadcast_to(jnp.asarray(x, logits.dtype), (MANY, *shape))
    shape = sample_shape(name)
    return compiled_many(name)(
        filled(jax.random.key_data(keys) if new else keys),
        each(logits, params(name).shape),
        {h: each(x, ()) for h, x in (defaults(name, logits.dtype) | hyperparameters).items()},
        each(weights(shape) if w is None else w, shape),
    )


def draws(name, logits, batches):
    """The outcomes of so many thousand draws at once in NumPy."""
    keys = jax.random.split(jax.random.key(3), (batches, MANY))
    chunks = [many(name, keys[i], logits) for i in range(batches)]
    return jax.tree.map(lambda *x: np.concatenate([np.asarray(y) for y in x]), *chunks)


def transformed(name, *args):
    """(key, logits, w, keys, scales) -> the second derivative in logits at that key, and the
    value and gradients in logits and w of a scan over a vmap of checkpoints, f's w scaled."""
    estimate = row(name)

    def loss(logits, w, key, scale):
        return estimate(key, lambda z: f(z, scale * w), logits)

    def total(logits, w, keys, scales):
        each = jax.vmap(jax.checkpoint(loss), (None, None, 0, 0))
        step = lambda carry, inputs: (carry, jnp.sum(each(logits, w, *inputs)))
        return jnp.sum(jax.lax.scan(step, None, (keys, scales))[1])

    @jax.jit
    def run(key, logits, w, keys, scales):
        second = jax.jacrev(lambda l: value_and_grad(name, key, l)[1])(logits)
        return second, jax.value_and_grad(total, argnums=(0, 1))(logits, w, keys, scales)

    return run(*args)


# ----------------------------------------------------------------------------- transformations


# All samplers, and of the laws that share a score function one.
OF_ONE_LAW = {n.split("/")[-1] if is_score(n) else n: n for n in reversed(ROWS)}.values()
# Of each law one that takes few operations: each of them is compiled by itself.
EAGER = ["bernoulli/disarm", "categorical/zgr", "correlated/concrete", "counts/poisson"]
EAGER += ["gates/hard_concrete", "simplex/logistic_normal", "subsets/reinforce"]
EAGER += ["top_k/straight_through"]


@pytest.mark.once
@pytest.mark.parametrize("name", EAGER)
def test_eager_is_jitted(name):
    jitted = one(name)
    assert_close((jitted.value, jitted.logits), value_and_grad(name, KEY, params(name)))


@pytest.mark.parametrize("name", mostly_thorough(ROWS, OF_ONE_LAW))
def test_vmap_over_everything_is_a_loop(name):
    """Over keys, params, what f closes over and all real hyperparameters; the batch has old keys,
    the loop new ones."""
    l, w = params(name), weights(sample_shape(name))
    logits, ws, hs = jnp.stack([l, l / 2, -l]), jnp.stack([w, -w, w / 2]), [0.3, 0.9, 2.0]
    old = jnp.stack([jax.random.PRNGKey(i) for i in range(3)])
    every = dict.fromkeys(real(name), filled(jnp.asarray(hs, DTYPE)))
    batch = many(name, old, filled(logits), filled(ws), **every)
    for i, h in enumerate(hs):
        every = dict.fromkeys(real(name), jnp.asarray(h, DTYPE))
        alone = one(name, jax.random.key(i), logits[i], ws[i], **every)
        assert_close(jax.tree.map(lambda x, i=i: x[i], batch), alone)


@pytest.mark.parametrize("name", [name for name in ROWS if real(name)])
def test_a_hyperparameter_is_traced(name):
    """One compilation serves a schedule; a sweep by vmap equals it; a bad value gives NaN."""
    for h in real(name):
        values = jnp.asarray([0.3, 0.9, 2.0], DTYPE)
        schedule = jax.tree.map(lambda *x: np.stack(x), *[one(name, **{h: v}) for v in values])
        sweep = many(name, KEY[None], params(name), **{h: filled(values)})
        assert_close(jax.tree.map(lambda x: x[:3], sweep), schedule)
        # The three differ; two draws of one law may be the same.
        assert len(np.unique(schedule.logits.round(6), axis=0)) > 1
        bad = one(name, **{h: jnp.asarray(np.nan if is_score(name) else -1.0, DTYPE)})
        assert np.isnan(bad.value) or np.all(np.isnan(bad.logits))
    assert compiled(name).traces == 1 == compiled(name).run._cache_size()


@pytest.mark.parametrize(
    "name",
    mostly_thorough(sorted({*ONE_OF_EACH, *OF_ONE_LAW}) if X64 else ONE_OF_EACH, ONE_OF_EACH),
)
def test_second_derivatives_and_checkpoints_in_a_scan(name):
    """Oracles: the sum of plain calls, and for a relaxed row central differences of its gradient at
    a fixed key. A score row's gradient is a number attached, whose derivative is NaN and no silent
    0, but for the sum over all states, and for dice: tests/test_score.py."""
    l, w = params(name), weights(sample_shape(name))
    keys = jax.random.split(jax.random.key(5), (2, 3))
    scales = jnp.asarray([[0.5, 1, -1], [2, 0.3, -0.7]], DTYPE)
    second, (value, gradients) = transformed(name, KEY, l, w, keys, scales)
    plain = [one(name, keys[i], l, scales[i] * w) for i in np.ndindex(scales.shape)]
    dw = sum(scale * call.w for scale, call in zip(scales.ravel(), plain, strict=True))
    assert_close(value, sum(call.value for call in plain))
    assert_close(gradients, (sum(call.logits for call in plain), dw))
    assert np.all(np.abs(dw) > 0)
    method = ESTIMATORS[name].method
    if is_score(name) and method not in ("exact", "dice"):
        assert np.all(np.isnan(second))
    else:
        assert np.all(np.isfinite(second)) and np.any(second != 0)
    relaxed = method == "exact" or not ESTIMATORS[name].discrete_forward
    # The bit of this row is discrete beside its relaxed factor.
    if relaxed and not name.endswith("stochastic_times_smooth") and X64:
        for i in np.ndindex(l.shape):
            e = jnp.zeros_like(l).at[i].set(1e-5)
            slope = (one(name, logits=l + e).logits - one(name, logits=l - e).logits) / 2e-5
            np.testing.assert_allclose(second[(..., *i)], slope, rtol=1e-5, atol=1e-8)


@pytest.mark.once
@pytest.mark.parametrize("name", ROWS)
def test_gradients_of_what_f_closes_over(name):
    """Oracle: central differences of the value at a fixed key: of f at the very sample."""
    w = weights(sample_shape(name))
    for i in np.ndindex(w.shape):
        e = jnp.zeros_like(w).at[i].set(1e-5)
        slope = (one(name, w=w + e).value - one(name, w=w - e).value) / 2e-5
        np.testing.assert_allclose(one(name).w[i], slope, rtol=1e-6, atol=1e-9)


@pytest.mark.once
@pytest.mark.thorough
@pytest.mark.parametrize("names", [ROWS])
def test_one_device_and_eight_draw_the_same_bits(names):
    """Rows in one process of eight devices, the leading axis of the params sharded: the same
    discrete draws to the bit; what is computed from them to the rounding of a compiler."""
    program = """
import jax, jax.numpy as jnp, json, numpy as np, relaxjax, sys
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rows import row as row_of
mesh = Mesh(np.array(jax.devices()), "x")
differ = []
for name in sys.argv[1:]:
    if name.endswith("/exact"):
        continue  # too many states
    row = row_of(name, classes=6)
    shape = (16,) if name.endswith("unordered_set") else (16, 6)
    logits = jax.random.normal(jax.random.key(1), shape)
    sharded = jax.device_put(logits, NamedSharding(mesh, PartitionSpec("x")))

    def loss(l):
        seen = []
        f = lambda z: jnp.sum(seen.append(jax.lax.stop_gradient(z)) or z**2)
        value = row(jax.random.key(0), f, l)
        # A score row's f is under a vmap, from which nothing may leak.
        return value, seen[0] if row.kind == "pathwise" else value

    run = jax.jit(jax.grad(loss, has_aux=True))
    (one, z_one), (eight, z_eight) = run(logits), run(sharded)
    assert len(eight.sharding.device_set) == 8
    same = np.array_equal if row.discrete_forward and row.kind == "pathwise" else np.allclose
    if not same(z_one, z_eight) or not np.allclose(one, eight, rtol=1e-5, atol=1e-6):
        differ.append(name)
print(json.dumps([len(jax.devices()), differ]))
"""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.path.dirname(__file__)}
    run = subprocess.run(
        [sys.executable, "-c", program, *names], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [8, []]


# -------------------------------------------------------------------------- numbers and dtypes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
def test_extremes_are_finite(name, dtype):
    """Logits to 1e4, masks, temperatures from 1e-3 to 1e3, in every dtype that holds the result, a
    hundred draws of each."""
    tables = [params(name, dtype, table) for table in (EXTREME, MASKED) if has(name, table)]
    cases = [(l, t) for l in tables for t in (1e-3, 1.0, 1e3)]
    if dtype == "float16" and (is_logarithmic(name) or name == "top_k/relaxed"):
        # y or log z is past 65,504; gradients near a tie of top_k.
        cases = [(l, t) for l, t in cases if t >= 1]
    logits = filled(jnp.concatenate([jnp.stack([l] * 100) for l, _ in cases]))
    t = filled(np.repeat(np.array([t for _, t in cases], dtype), 100))
    keys = filled(jnp.concatenate([jax.random.split(KEY, 100)] * len(cases)))
    out = many(name, keys, logits, **dict.fromkeys(real(name), t))
    infinite = np.isinf(np.asarray(logits, float))
    everything = [out.value, out.sample, out.logits]
    if dtype != "float16":  # h log z / temperature is up to 1e10
        everything += out.hyperparameters.values()
    assert all(x.dtype == dtype for x in everything)
    for x in everything:
        x = np.asarray(x, float)
        # Infinite is only what the law makes so: log z, or logit z, of a mask.
        allowed = infinite if is_logarithmic(name) and x.shape == infinite.shape else False
        bad = ~(np.isfinite(x) | allowed)
        assert not np.any(bad), (logits[bad.nonzero()[0][0]], t[bad.nonzero()[0][0]])
    assert np.all(np.asarray(out.logits)[infinite] == 0)


@pytest.mark.once
@pytest.mark.parametrize("name", [name for name in ROWS if real(name)])
def test_a_hyperparameter_outside_the_law_has_no_gradient(name):
    gradients = one(name, **dict.fromkeys(real(name), jnp.asarray(0.7, DTYPE))).hyperparameters
    for h, gradient in gradients.items():
        depends = not ESTIMATORS[name].discrete_forward or (name, h) in CHANGES_THE_LAW
        if is_score(name):  # the gradient of the variance; the baseline is a number
            depends = h != "baseline"
        assert (gradient != 0) == depends and np.isfinite(gradient), h


@pytest.mark.parametrize("name", [name for name in ROWS if has(name, MASKED)])
def test_a_mask_is_certain(name):
    """In a masked class, or a bit that is sure: never drawn otherwise, and gradient exactly 0."""
    logits = params(name, table=MASKED)
    infinite, sure = np.isinf(logits), np.asarray(logits > 0, DTYPE)
    own = sample_shape(name) == logits.shape
    # f depends on these entries alone; stochastic_times_smooth is sqrt(1) there.
    w = jnp.asarray(infinite, DTYPE) if own else weights(sample_shape(name))
    out = many(name, jax.random.split(KEY, 200), logits, w)
    assert np.all(np.isfinite(out.logits)) and np.all(np.asarray(out.logits)[:, infinite] == 0)
    if own and not is_score(name):
        expected = logits if is_logarithmic(name) else sure
        assert np.all(np.asarray(out.sample)[:, infinite] == np.asarray(expected)[infinite])
    if own:
        z = np.where(infinite, 0 if is_logarithmic(name) else sure, 0.5)
        np.testing.assert_allclose(out.value, f(jnp.asarray(z), w), rtol=32 * np.finfo(DTYPE).eps)


# ------------------------------------------------------------------------- the law and the bias


# Those of top_k have another law than any Family here: tests/test_top_k.py.
HARD = [n for n in ROWS if ESTIMATORS[n].discrete_forward and law(n) != "top_k"]
SCORE = [n for n in ROWS if is_score(n)]
# The others of their law draw by its family, as rloo does, or with the noise of rebar.
OWN_DRAWS = [f"{law}/rloo" for law in ("bernoulli", "categorical", "subsets")] + [
    *("bernoulli/arm", "bernoulli/disarm", "bernoulli/arms", "bernoulli/rebar"),
    *("categorical/rebar", "categorical/unordered_set"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n in HARD if not is_score(n)])
def test_f_sees_the_discrete_law(name, dtype):
    """Chi-squared over every joint state, each variable's noise its own; exactly 0.0 and 1.0."""
    x, logits = states(name), params(name, dtype)
    z = np.asarray(draws(name, logits, 50).sample, np.float64)
    places = {state.tobytes(): i for i, state in enumerate(x)}
    # A key that is not there is a sample that the law does not have.
    counts = np.bincount([places[state.tobytes()] for state in z], minlength=len(x))
    p = oracles.law(x, np.asarray(logits, np.float64))
    assert stats.chisquare(counts, p * len(z)).pvalue > 1e-6


@pytest.mark.parametrize("name", SCORE)
def test_value_and_gradient_are_unbiased(name):
    """Oracle: the sum over every joint state. A million draws of several f: test_audit.py."""
    x, logits = states(name), params(name)
    out = draws(name, logits, 20)
    F = np.array([f(y) for y in jnp.asarray(x, DTYPE)], np.float64)
    value, gradient = oracles.expectation(x, np.asarray(logits, np.float64), F)
    for draw, expected in ((out.value, value), (out.logits, gradient)):
        draw = np.asarray(draw, np.float64)
        error = draw.std(axis=0) / np.sqrt(len(draw))
        assert np.all(np.abs(draw.mean(axis=0) - expected) < 5.5 * error + TOLERANCE)
    assert np.any(np.abs(gradient) > 0.1)


@pytest.mark.parametrize("name", mostly_thorough(SCORE if X64 else OWN_DRAWS, OWN_DRAWS))
def test_the_value_is_that_of_the_discrete_law(name):
    """Oracle: the probability of each joint state, as the mean value of its indicator; f sees
    exactly 0.0 and 1.0."""
    x, logits = states(name), params(name)
    estimate = row(name)

    def values(key):
        is_state = lambda x: lambda z: jnp.all(z == x).astype(z.dtype)
        return jax.vmap(lambda x: estimate(key, is_state(x), logits))(jnp.asarray(x, DTYPE))

    run = jax.jit(jax.vmap(values))
    keys = jax.random.split(jax.random.key(3), (20, 1_000))
    seen = np.concatenate([run(keys[i]) for i in range(len(keys))])
    # Not one draw outside of the support.
    np.testing.assert_allclose(seen.sum(axis=1), 1, rtol=1e-5)
    p = oracles.law(x, np.asarray(logits, np.float64))
    error = np.maximum(seen.std(axis=0), np.sqrt(p / len(seen))) / np.sqrt(len(seen))
    assert np.all(np.abs(seen.mean(axis=0) - p) < 5.5 * error + TOLERANCE)


@pytest.mark.once
@pytest.mark.parametrize("name", ROWS)
def test_evaluations_are_counted_right(name):
    """f reports every evaluation that runs, once for each element of a vmap."""
    jax.effects_barrier()
    before = compiled(name).calls
    jax.block_until_ready(one(name))
    jax.effects_barrier()
    assert compiled(name).calls - before == row(name).evaluations(params(name).shape)


# ----------------------------------------------------------------------------- memory and errors


@pytest.mark.once
# The others enumerate: no large shapes.
@pytest.mark.parametrize("name", [name for name in ROWS if not name.endswith("/exact")])
def test_residuals_are_of_the_size_of_the_output(name):
    """What the backward pass keeps: at most the sample and the params, whatever num_noise."""
    logits = jnp.zeros((2000,) if name.endswith("unordered_set") else (100, 20), DTYPE)
    counts = {h: 50 for h in ESTIMATORS[name].hyperparameters if h in ("num_noise", "truncation")}
    estimate = row(name, classes=20, **counts)
    # f is linear and keeps nothing of its own.
    back = jax.eval_shape(lambda l: jax.vjp(lambda l: estimate(KEY, jnp.sum, l), l)[1], logits)
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(back))
    assert (0 if law(name) in ("counts", "subsets") else logits.nbytes / 2) < kept
    assert kept <= 3 * logits.nbytes + 4096


@pytest.mark.once
@pytest.mark.parametrize("name", ROWS)
def test_wrong_arguments_say_so(name):
    """TypeError for a wrong type, ValueError for a wrong value or shape; all at trace time."""
    l, parameter = params(name), PARAMETER.get(name, "(logits|params)")
    estimate = row(name)
    cases = [
        (lambda: estimate(KEY, f, jnp.ones(l.shape, int)), TypeError, f"{parameter}: got int"),
        (lambda: estimate(KEY, lambda z: z, l), ValueError, "f: got a value float"),
        (lambda: estimate(KEY, lambda z: jnp.int32(1), l), TypeError, "f: got a value int"),
        (lambda: relaxjax.estimator(name, tau=1.0), TypeError, "tau: got it for .*write temp"),
        (lambda: relaxjax.estimator(name + "x"), ValueError, f"'{name}x', need one of {name}"),
    ]
    if law(name) in OF_ROWS or name in OF_ROWS:
        cases.append(
            (lambda: estimate(KEY, f, l.ravel()[0]), ValueError, f"{parameter}: got float")
        )
    for h in real(name):
        values = [] if any_sign(h) and is_score(name) else [-1.0, np.float32(-0.5)]
        bad = [(x, ValueError) for x in (*values, float("nan"), np.full(7, 0.5))]
        for x, kind in [*bad, ("warm", TypeError)] if h != "critic_params" else []:
            call = lambda h=h, x=x: row(name, **{h: x})(KEY, f, l)
            cases.append((call, kind, f"^{h}: got"))
    for call, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            jax.eval_shape(call)
        assert caught.type is kind and "need" in str(caught.value)


@pytest.mark.once
@pytest.mark.parametrize("name", ROWS)
def test_the_row_agrees_with_its_function(name):
    """Its defaults are the function's, it is documented, and calls nothing else."""
    method = name.split("/")[1]
    home = getattr(relaxjax, law(name))
    if is_score(name):
        home = next(m for m in (relaxjax.score, relaxjax.control_variates) if hasattr(m, method))
    plain, function = ESTIMATORS[name], getattr(home, method)
    assert plain.function is function and plain.__doc__ == function.__doc__
    given = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    given = {k: v for k, v in given.items() if v is not inspect.Parameter.empty and k != "shape"}
    if "family" in given:
        assert given.pop("family") is plain.family
    optional = {h: v for h, v in plain.hyperparameters.items() if v is not REQUIRED}
    assert {h: v for h, v in optional.items() if h in given} == given
    assert all(v is None for h, v in optional.items() if h not in given)  # filled in
    assert plain.kind in ("pathwise", "score") and plain.reference
    assert (plain.bias == "none" and plain.target == "discrete") == is_score(name)
    assert plain.discrete_forward == (plain.target == "discrete")
    sections = ["Gradient", "Bias", *["Distribution"] * (not is_score(name))]
    for section in [*sections, *["Source"] * (not name.endswith("/exact"))]:
        assert re.search(f"^ *{section}:", function.__doc__, re.M), section
    # The address of a function is no part of its program.
    program = lambda estimate: re.sub(
        "0x[0-9a-f]+", "", str(jax.make_jaxpr(lambda l: estimate(KEY, f, l))(params(name)))
    )
    if not is_score(name) and "correlation_tril" not in optional:
        sampler = functools.partial(function, **row(name).hyperparameters)
        assert program(row(name)) == program(lambda key, f, l: f(sampler(key, l)))


@pytest.mark.once
@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_an_object(name):
    """It pickles, is equal to its like, hashes by numbers, shows how to make it, is a pytree of its
    real hyperparameters, and asks for what has no default."""
    plain, own = ESTIMATORS[name], row(name)
    for estimate in (plain, own):
        again = pickle.loads(pickle.dumps(estimate))
        assert again == estimate and again.__doc__ == estimate.__doc__
        leaves, tree = jax.tree.flatten(estimate)
        assert jax.tree.unflatten(tree, leaves) == estimate
    if "values" not in own.real:
        assert hash(own) == hash(row(name))
    required = [h for h, x in plain.hyperparameters.items() if x is REQUIRED]
    assert repr(plain).startswith(f"estimator({name!r}")
    for h in required:
        rest = {k: v for k, v in own.hyperparameters.items() if k != h}
        with pytest.raises(TypeError, match=f"^{h}: got nothing for {name}, need it set"):
            plain.replace(**rest)(KEY, f, params(name))
    for h in real(name):
        twice = own.replace(**{h: 2 * own.real[h] + 0.1})
        assert twice != own and jax.tree.map(lambda x: x, twice) == twice


@pytest.mark.once
def test_a_sweep_over_an_estimator():
    """As an argument of jit, vmap and grad, beside its hyperparameters one by one."""
    l, t = params("categorical/gumbel_softmax"), jnp.asarray([0.3, 0.9, 2.0])
    sweep = relaxjax.estimator("categorical/gumbel_softmax", temperature=t)
    call = jax.jit(lambda estimate: estimate(KEY, f, l))
    one = lambda t: call(relaxjax.estimator("categorical/gumbel_softmax", temperature=t))
    assert_close(jax.vmap(call)(sweep), jnp.stack([one(x) for x in t]))
    slope = jax.grad(call)(relaxjax.estimator("categorical/gumbel_softmax", temperature=0.9))
    assert_close(slope.real["temperature"], jax.grad(one)(0.9))
    assert list(inspect.signature(sweep).parameters) == ["key", "f", "params"]


LAYERS = [  # each imports from those above it alone
    {"_noise", "_numerics"},
    {"_special"},
    {"_arguments"},
    {"families"},
    {"_rules"},
    {"bernoulli", "categorical", "gates", "laplace_bridge", "simplex", "subsets", "top_k"},
    {"correlated", "counts"},
    {"_surrogate"},
    {"score"},
    {"control_variates"},
    {"catalog", "audit"},
    {"__init__"},
    {"distributions"},
]


@pytest.mark.once
def test_imports_point_downward():
    """The layers of the design; nobody uses another module's private names but those of a module
    with an underscore; the package needs jax alone."""
    program = """
import sys
import relaxjax
known = {"distrax", "flax", "optax", "scipy.stats", "tensorflow_datasets", "tensorflow_probability"}
print(*known & set(sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "", "")
    source = pathlib.Path(relaxjax.__file__).parent
    layer = {module: i for i, modules in enumerate(LAYERS) for module in modules}
    for path in source.rglob("*.py"):
        module = path.relative_to(source).parts[0].removesuffix(".py")
        tree = ast.parse(path.read_text())
        imported = {}  # a local name -> the module behind it, for `from relaxjax import ...`
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not node.module.startswith("relaxjax"):
                continue
            for alias in node.names:
                inner = node.module.split(".")[1:]
                home = inner[0] if inner else alias.name
                assert home == module or layer[home] < layer[module], (path, home)
                public = home.startswith("_") or home == module == "distributions"
                assert public or not inner or not alias.name.startswith("_"), (path, alias.name)
                if not inner:
                    imported[alias.asname or alias.name] = home
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                home = imported.get(node.value.id, "_")
                private = node.attr.startswith("_") and not node.attr.startswith("__")
                assert home.startswith("_") or not private, (path, home, node.attr)
