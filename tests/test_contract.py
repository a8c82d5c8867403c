"""Every row of the catalog against what the library promises of all, driven by the row's fields.

What a row's rule is stands in the tests of its module; here stands what all rows share. With
RELAXJAX_X64=0 they run in float32, as most users do; those marked once do not depend on it. A
compilation costs more than any of these programs: tests share one where they can.
"""

import functools
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import FEW, ROWS
from scipy import stats

import relaxjax
from relaxjax.catalog import ESTIMATORS

X64 = jax.config.jax_enable_x64
# All rows as users compile them in float32, and a few in every dtype.
pytestmark = [pytest.mark.optimized] if FEW or not X64 else []
DTYPE = "float64" if X64 else "float32"
TOLERANCE = 1e-10 if X64 else 2e-4
DTYPES = ["bfloat16", "float16", "float64"] if X64 else ["float32"]
KEY = jax.random.key(0)
# Params of a law by its row or its module: ordinary ones, extreme ones, and, where the law has
# them, masks (entries that never change).
ROWS_OF_3 = [[0.3, -1.2, 0.8], [0.1, 2.0, -0.4]]
ITEMS = [[0.3, -1.2, 0.8, 0.5], [0.1, 2.0, -0.4, 0.7]]
ONE_OF_6 = [0.3, -1.2, 0.8, 0.1, 2.0, -0.4]
LOGITS = {
    **dict.fromkeys(["bernoulli", "categorical", "gates", "simplex", "counts"], ROWS_OF_3),
    **dict.fromkeys(["top_k", "subsets"], ITEMS),
    "categorical/unordered_set": ONE_OF_6,
}
SURE = [[0.3, -np.inf, 0.8], [np.inf, 2.0, -0.4]]
IMPOSSIBLE = [[0.3, -np.inf, 0.8], [0.1, 2.0, -np.inf]]
FEWER_ITEMS = [[0.3, -np.inf, 0.8, 0.5], [0.1, 2.0, -np.inf, 0.7]]
MASKED = {
    **dict.fromkeys(["bernoulli", "gates"], SURE),
    **dict.fromkeys(["categorical", "counts/generalized_gumbel_softmax"], IMPOSSIBLE),
    **dict.fromkeys(["top_k", "subsets"], FEWER_ITEMS),
    "categorical/unordered_set": [0.3, -np.inf, 0.8, 0.1, -np.inf, -0.4],
}
FAR = [[1e4, -1e4, 0.0], [-1e4, 5.0, 1e4]]
EXTREME = {
    **dict.fromkeys(["bernoulli", "categorical", "gates", "simplex", "counts"], FAR),
    **dict.fromkeys(["top_k", "subsets"], [[1e4, -1e4, 0.0, 1e4], [-1e4, 5.0, 1e4, -5.0]]),
    "categorical/unordered_set": [1e4, -1e4, 0.0, 5.0, -1e4, 1e4],
}
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
# What the table sets that the function asks for.
FILLED = {"k", "truncation", "correlation_tril", "values", "linear", "critic", "critic_params"}


def module(name):
    return name.split("/")[0]


def has(name, table):
    return name in table or module(name) in table


def params(name, dtype=DTYPE, table=LOGITS):
    return jnp.asarray(table.get(name, table.get(module(name))), dtype)


def real(name):
    """The row's real hyperparameters."""
    return [
        h for h, default in ESTIMATORS[name].hyperparameters.items() if isinstance(default, float)
    ]


def any_sign(h):
    return h in ("scale", "baseline")


def is_score(name):
    return ESTIMATORS[name].kind == "score"


def family(name):
    row = ESTIMATORS[name]
    k = row.hyperparameters.get("k")
    return row.family if row.family is None or k is None else row.family(k)


ROW_AND_HYPERPARAMETER = [(name, h) for name in ROWS for h in real(name)]
# They enumerate: no large shapes.
SAMPLED = [name for name in ROWS if not name.endswith("/exact")]


def weights(shape):
    return np.random.default_rng(0).normal(size=shape)


def f(z, w=None):
    """A smooth, bounded function with no symmetry; masked entries of a log law are -inf."""
    z = jnp.where(jnp.isinf(z), 0, z)
    w = jnp.asarray(weights(z.shape) if w is None else w, z.dtype)
    return jnp.sum(jnp.tanh(z * w + jnp.asarray(0.3, z.dtype)) ** 2)


def sample_shape(name):
    """The shape of what f sees."""
    shapes = []
    f = lambda z: shapes.append(z.shape) or jnp.sum(z)
    jax.eval_shape(lambda l: relaxjax.estimator(name)(KEY, f, l), params(name))
    return shapes[0]


def value_and_grad(name, key, logits, **hyperparameters):
    estimate = relaxjax.estimator(name, **hyperparameters)
    return jax.value_and_grad(lambda l: estimate(key, f, l))(logits)


def assert_close(actual, expected, tolerance=TOLERANCE):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        actual,
        expected,
    )


@functools.cache
def jitted(name):
    return jax.jit(functools.partial(value_and_grad, name))


# ----------------------------------------------------------------------------- transformations


@pytest.mark.once
@pytest.mark.parametrize("name", ROWS)
def test_eager_is_jitted(name):
    assert_close(jitted(name)(KEY, params(name)), value_and_grad(name, KEY, params(name)))


@pytest.mark.parametrize("name", ROWS)
def test_vmap_over_keys_and_params(name):
    """The batch has old keys, the loop new ones."""
    logits = jnp.stack([params(name), params(name) / 2, -params(name)])
    old = jnp.stack([jax.random.PRNGKey(i) for i in range(3)])
    batch = jax.jit(jax.vmap(functools.partial(value_and_grad, name)))(old, logits)
    loop = [jitted(name)(jax.random.key(i), l) for i, l in enumerate(logits)]
    assert_close(batch, jax.tree.map(lambda *x: jnp.stack(x), *loop))


@pytest.mark.parametrize("name, hyperparameter", ROW_AND_HYPERPARAMETER)
def test_a_hyperparameter_is_traced(name, hyperparameter):
    """One compilation serves a schedule; a sweep by vmap equals it; a bad value gives NaN."""
    traces = []

    def one(h):
        traces.append(h)
        return value_and_grad(name, KEY, params(name), **{hyperparameter: h})

    values, step = jnp.asarray([0.3, 0.9, 2.0], DTYPE), jax.jit(one)
    schedule = jax.tree.map(lambda *x: np.stack(x), *[step(h) for h in values])
    bad = step(jnp.asarray(np.nan if is_score(name) else -1.0, DTYPE))
    assert len(traces) == 1 == step._cache_size()
    assert_close(jax.jit(jax.vmap(one))(values), schedule)
    # The three differ; two draws of one law may be the same.
    assert len(np.unique(schedule[1].round(6), axis=0)) > 1
    assert np.isnan(bad[0]) or np.all(np.isnan(bad[1]))


@pytest.mark.parametrize("name", ROWS)
def test_checkpoint_in_a_scan(name):
    keys = jax.random.split(KEY, 3)

    def total(l):
        step = jax.checkpoint(lambda key: relaxjax.estimator(name)(key, f, l))
        return jnp.sum(jax.lax.scan(lambda carry, key: (carry, step(key)), None, keys)[1])

    expected = sum(jitted(name)(key, params(name))[1] for key in keys)
    assert_close(jax.jit(jax.grad(total))(params(name)), expected)


@pytest.mark.parametrize("name", ROWS)
def test_second_derivatives_are_finite_and_relaxed_ones_are_derivatives(name):
    """Oracle for a relaxed row: central differences of its gradient, at a fixed key."""
    logits = params(name)
    gradient = lambda l: jitted(name)(KEY, l)[1]
    second = jax.jit(jax.jacrev(lambda l: value_and_grad(name, KEY, l)[1]))(logits)
    # A score row's gradient is a number attached, but for the sum over all states.
    silent = is_score(name) and not name.endswith("/exact")
    assert np.all(np.isfinite(second)) and np.any(second != 0) == (not silent)
    discrete = ESTIMATORS[name].discrete_forward and not name.endswith("/exact")
    # The bit of this row is discrete beside its relaxed factor.
    if discrete or name.endswith("stochastic_times_smooth") or not X64:
        return
    for i in np.ndindex(logits.shape):
        e = jnp.zeros_like(logits).at[i].set(1e-5)
        expected = (gradient(logits + e) - gradient(logits - e)) / 2e-5
        np.testing.assert_allclose(second[(..., *i)], expected, rtol=1e-5, atol=1e-8)


@pytest.mark.once
@pytest.mark.parametrize("name", ROWS)
def test_gradients_of_what_f_closes_over(name):
    """Oracle: the gradient of f at the very sample, by a second f that keeps it."""
    key, logits, w = (
        jax.random.key(2),
        params(name),
        jnp.asarray(weights(sample_shape(name)), DTYPE),
    )
    estimate = relaxjax.estimator(name)

    @jax.jit
    def both(w):
        loss = lambda w, l: estimate(key, lambda z: f(z, w), l)
        value, through = jax.value_and_grad(loss)(w, logits)
        return value, through, jax.grad(lambda w: loss(w, jax.lax.stop_gradient(logits)))(w)

    _, through, fixed = both(w)
    assert_close(through, fixed)
    i = tuple(n - 1 for n in w.shape)
    e = jnp.zeros_like(w).at[i].set(1e-3)
    slope = (both(w + e)[0] - both(w - e)[0]) / 2e-3
    np.testing.assert_allclose(through[i], slope, rtol=1e-2, atol=1e-3)


@pytest.mark.once
def test_one_device_and_eight_draw_the_same_bits():
    """All rows in one process of eight devices, the leading axis of the params sharded: the same
    discrete draws to the bit; what is computed from them to the rounding of a compiler."""
    program = """
import jax, jax.numpy as jnp, json, numpy as np, relaxjax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
mesh = Mesh(np.array(jax.devices()), "x")
differ = []
for name, row in relaxjax.catalog.ESTIMATORS.items():
    if name.endswith("/exact"):
        continue  # too many states
    shape = (16,) if name.endswith("unordered_set") else (16, 6)
    logits = jax.random.normal(jax.random.key(1), shape)
    sharded = jax.device_put(logits, NamedSharding(mesh, PartitionSpec("x")))

    def loss(l):
        seen = []
        f = lambda z: jnp.sum(seen.append(jax.lax.stop_gradient(z)) or z**2)
        value = relaxjax.estimator(name)(jax.random.key(0), f, l)
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
    environment = {**os.environ, "XLA_FLAGS": flags}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [8, []]


# -------------------------------------------------------------------------- numbers and dtypes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
def test_extremes_are_finite(name, dtype):
    """Logits to 1e4, masks, temperatures from 1e-3 to 1e3, in every dtype that holds the result."""

    def loss(logits, hyperparameters):
        seen = []
        estimate = relaxjax.estimator(name, **hyperparameters)
        value = estimate(KEY, lambda z: seen.append(jax.lax.stop_gradient(z)) or f(z), logits)
        return value, (value, value if is_score(name) else seen[0])

    run = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    logarithmic = "log_" in name or "logit_" in name
    for table in (EXTREME, MASKED):
        if not has(name, table):
            continue
        logits = params(name, dtype, table)
        for t in (1e-3, 1.0, 1e3):
            if dtype == "float16" and logarithmic and t < 1:
                continue  # y or log z is past 65,504
            if dtype == "float16" and name == "top_k/relaxed" and t < 1:
                continue  # gradients near a tie
            hyperparameters = {h: jnp.asarray(t, dtype) for h in real(name)}
            (gradient, others), (value, z) = run(logits, hyperparameters)
            everything = [value, z, gradient, *others.values()]
            assert all(x.dtype == dtype for x in everything)
            if dtype == "float16":  # h log z / temperature is up to 1e10
                everything = everything[:3]
            for x in everything:
                x = np.asarray(x, float)
                # Infinite is only what the law makes so: log z, or logit z, of a mask.
                allowed = logarithmic and x.ndim and np.isinf(np.asarray(logits, float))
                assert np.all(np.isfinite(x) | allowed), (logits, t)
            assert np.all(np.asarray(gradient)[np.isinf(np.asarray(logits, float))] == 0)


@pytest.mark.once
@pytest.mark.parametrize("name", [name for name in ROWS if real(name)])
def test_a_hyperparameter_outside_the_law_has_no_gradient(name):
    row = ESTIMATORS[name]
    estimate = lambda hs: relaxjax.estimator(name, **hs)(KEY, f, params(name))
    gradients = jax.jit(jax.grad(estimate))({h: jnp.asarray(0.7, DTYPE) for h in real(name)})
    for h, gradient in gradients.items():
        depends = not row.discrete_forward or (name, h) in CHANGES_THE_LAW
        if is_score(name):  # the gradient of the variance; the baseline is a number
            depends = h != "baseline"
        assert (gradient != 0) == depends and np.isfinite(gradient), h


@pytest.mark.parametrize("name", [name for name in ROWS if has(name, MASKED)])
def test_a_mask_is_certain(name):
    """In a masked class, or a bit that is sure: never drawn otherwise, and gradient exactly 0."""
    logits = params(name, table=MASKED)
    keys = jax.random.split(KEY, 200)
    estimate = relaxjax.estimator(name)
    infinite = jnp.isinf(logits)

    def one(key):
        g = jax.grad(lambda l: estimate(key, f, l))(logits)
        # Of a value of all classes, the largest that f sees is no mask's own.
        own = lambda z: infinite if z.shape == infinite.shape else False
        masked = lambda z: jnp.max(jnp.where(own(z) & jnp.isfinite(z), z, 0))
        return g, estimate(key, masked, logits)

    gradients, largest = jax.jit(jax.vmap(one))(keys)
    assert np.all(np.isfinite(gradients)) and np.all(np.asarray(gradients)[:, infinite] == 0)
    sure = np.any(np.asarray(logits) == np.inf) and "logit" not in name
    # correlated: a sure bit is sure whatever the others are; stochastic_times_smooth: sqrt(1).
    # An exact value is no draw but a sum of probabilities, which is 1 to their rounding.
    rounding = 8 * np.finfo(DTYPE).eps if name.endswith("/exact") else 0
    np.testing.assert_allclose(largest, float(sure), rtol=rounding, atol=0)


# ------------------------------------------------------------------------- the law and the bias


# Those of top_k have another law than any Family here: tests/test_top_k.py.
HARD = [n for n in ROWS if ESTIMATORS[n].discrete_forward and module(n) != "top_k"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n in HARD if not is_score(n)])
def test_f_sees_the_discrete_law(name, dtype):
    """Chi-squared over every joint state, each variable's noise its own; exactly 0.0 and 1.0."""
    law, logits, draws = family(name), params(name, dtype), 50_000
    support = law.support(logits)
    code = np.random.default_rng(1).normal(size=logits.shape)  # a number for each state
    codes = jnp.tensordot(support.astype(DTYPE), jnp.asarray(code, DTYPE), logits.ndim)

    def state(key):
        seen = []
        relaxjax.estimator(name)(key, lambda z: seen.append(z) or jnp.sum(z), logits)
        (z,) = seen
        exact = jnp.all((z == 0) | (z == 1))
        return jnp.argmin(
            jnp.abs(codes - jnp.vdot(z.astype(DTYPE), jnp.asarray(code, DTYPE)))
        ), exact

    states, exact = jax.jit(jax.vmap(state))(jax.random.split(jax.random.key(3), draws))
    wide = logits.astype(DTYPE)
    p = np.exp(np.asarray(jax.vmap(law.log_prob, (0, None))(support.astype(DTYPE), wide), float))
    counts = np.bincount(states, minlength=len(p))
    assert np.all(exact)
    assert stats.chisquare(counts, p / p.sum() * draws).pvalue > 1e-6


@pytest.mark.parametrize("name", [n for n in HARD if is_score(n)])
def test_the_value_is_that_of_the_discrete_law(name):
    """Oracle: the probability of each joint state, as the mean value of its indicator; f sees
    exactly 0.0 and 1.0. Bias of the gradients: tests/test_audit.py."""
    law, logits, draws = family(name), params(name), 20_000
    support = law.support(logits)
    estimate = relaxjax.estimator(name)

    def values(key):
        is_state = lambda x: lambda z: jnp.all(z == x).astype(z.dtype)
        return jax.vmap(lambda x: estimate(key, is_state(x), logits))(support)

    run = jax.jit(jax.vmap(values))
    keys = jax.random.split(jax.random.key(3), (20, draws // 20))
    seen = np.concatenate([run(chunk) for chunk in keys])
    # Not one draw outside of the support.
    np.testing.assert_allclose(seen.sum(axis=1), 1, rtol=1e-5)
    p = np.exp(np.asarray(jax.vmap(law.log_prob, (0, None))(support, logits), float))
    error = np.maximum(seen.std(axis=0), np.sqrt(p / draws)) / np.sqrt(draws)
    assert np.all(np.abs(seen.mean(axis=0) - p) < 5.5 * error + TOLERANCE)


@pytest.mark.once
@pytest.mark.parametrize("name", ROWS)
def test_evaluations_are_counted_right(name):
    """f reports every evaluation that runs, once for each element of a vmap."""
    calls = []

    def counted(z):
        jax.debug.callback(lambda _: calls.append(1), jnp.sum(z))
        return f(z)

    loss = lambda l: relaxjax.estimator(name)(KEY, counted, l)
    jax.block_until_ready(jax.jit(jax.value_and_grad(loss))(params(name)))
    jax.effects_barrier()
    row = ESTIMATORS[name]
    assert len(calls) == row.evaluations(params(name).shape, row.hyperparameters)


# ----------------------------------------------------------------------------- memory and errors


@pytest.mark.once
@pytest.mark.parametrize("name", SAMPLED)
def test_residuals_are_of_the_size_of_the_output(name):
    """What the backward pass keeps: at most the sample and the params, whatever num_noise."""
    logits = jnp.zeros((2000,) if name.endswith("unordered_set") else (100, 20), DTYPE)
    counts = {h: 50 for h in ESTIMATORS[name].hyperparameters if h in ("num_noise", "truncation")}
    estimate = relaxjax.estimator(name, **counts)
    # f is linear and keeps nothing of its own.
    back = jax.eval_shape(lambda l: jax.vjp(lambda l: estimate(KEY, jnp.sum, l), l)[1], logits)
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(back))
    assert (0 if module(name) in ("counts", "subsets") else logits.nbytes / 2) < kept
    assert kept <= 3 * logits.nbytes + 4096


@pytest.mark.once
@pytest.mark.parametrize("name", ROWS)
def test_wrong_arguments_say_so(name):
    estimate = relaxjax.estimator(name)
    cases = [
        (
            lambda: estimate(KEY, f, jnp.ones(params(name).shape, int)),
            TypeError,
            f"{PARAMETER.get(name, 'logits')}: got int",
        ),
        (lambda: estimate(KEY, lambda z: z, params(name)), TypeError, "f: got a value float"),
        (
            lambda: estimate(KEY, lambda z: jnp.int32(1), params(name)),
            TypeError,
            "f: got a value int",
        ),
        (lambda: relaxjax.estimator(name, tau=1.0), TypeError, "tau: got it for"),
        (lambda: relaxjax.estimator(name + "x"), ValueError, f"'{name}x', need one of {name}"),
    ]
    for h in real(name):
        negative = [] if any_sign(h) and is_score(name) else [-1.0, np.float32(-0.5)]
        for bad in (*negative, float("nan"), "warm", np.full(7, 0.5)):
            if h == "critic_params":
                continue  # a critic's are its own
            call = lambda h=h, bad=bad: relaxjax.estimator(name, **{h: bad})(KEY, f, params(name))
            cases.append((call, (TypeError, ValueError), f"^{h}: got"))
    for call, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            jax.jit(call)()
        assert "need" in str(caught.value)


@pytest.mark.once
@pytest.mark.parametrize("name", ROWS)
def test_the_row_agrees_with_its_function(name):
    """Its defaults are the function's, and it is documented."""
    law, function = name.split("/")
    home = getattr(relaxjax, law)
    if is_score(name):
        home = next(m for m in (relaxjax.score, relaxjax.control_variates) if hasattr(m, function))
    function = getattr(home, function)
    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    given = {k: v for k, v in defaults.items() if v is not inspect.Parameter.empty and k != "shape"}
    row = ESTIMATORS[name]
    assert {h: v for h, v in row.hyperparameters.items() if h not in FILLED - set(given)} == given
    assert row.kind in ("pathwise", "score") and row.reference
    assert row.unbiased == is_score(name)
    if family(name) is not None:
        assert family(name).name.startswith(law)
    for section in ("Gradient:", "Bias:", *["Distribution:"] * (not is_score(name))):
        assert section in function.__doc__
    assert "Source:" in function.__doc__ or name.endswith("/exact")
    # The address of a function is no part of its program.
    program = lambda estimate: re.sub(
        "0x[0-9a-f]+", "", str(jax.make_jaxpr(lambda l: estimate(KEY, f, l))(params(name)))
    )
    assert program(relaxjax.estimator(name)) == program(
        functools.partial(row.estimate, **row.hyperparameters)
    )
    if not is_score(name) and None not in row.hyperparameters.values():
        sampler = functools.partial(function, **row.hyperparameters)
        assert program(relaxjax.estimator(name)) == program(lambda key, f, l: f(sampler(key, l)))


@pytest.mark.once
def test_imports_point_downward():
    """_numerics and families <- laws <- catalog; the package needs jax alone."""
    program = """
import sys
import relaxjax
known = {"distrax", "flax", "optax", "scipy.stats", "tensorflow_datasets", "tensorflow_probability"}
print(*known & set(sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "", "")
    source = pathlib.Path(relaxjax.__file__).parent
    assert "from relaxjax" not in (source / "_numerics.py").read_text()
    assert "from relaxjax" not in (source / "families.py").read_text()
