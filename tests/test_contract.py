"""Every row of the catalog against what the library promises of all, driven by the row's fields.

What a row's rule is stands in the tests of its module; here stands what all rows share. With
RELAXJAX_X64=0 the same tests run in float32, as most users do.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import relaxjax
from relaxjax.catalog import ESTIMATORS

ROWS = sorted(ESTIMATORS)
X64 = jax.config.jax_enable_x64
DTYPE = "float64" if X64 else "float32"
TOLERANCE = 1e-10 if X64 else 2e-4
DTYPES = ["bfloat16", "float16", "float32"] + ["float64"] * X64
KEY = jax.random.key(0)
# Params of a law by its module: ordinary ones, and ones with masks (entries that never change).
LOGITS = {
    "bernoulli": [[0.3, -1.2, 0.8], [0.1, 2.0, -0.4]],
    "categorical": [[0.3, -1.2, 0.8], [0.1, 2.0, -0.4]],
}
MASKED = {
    "bernoulli": [[0.3, -np.inf, 0.8], [np.inf, 2.0, -0.4]],
    "categorical": [[0.3, -np.inf, 0.8], [0.1, 2.0, -np.inf]],
}
# The real hyperparameters on which the forward law depends although it is discrete.
CHANGES_THE_LAW = {("categorical/decoupled_straight_through", "forward_temperature")}
WEIGHTS = np.random.default_rng(0).normal(size=(2, 3))


def module(name):
    return name.split("/")[0]


def params(name, dtype=DTYPE, table=LOGITS):
    return jnp.asarray(table[module(name)], dtype)


def real(name):
    """The row's real hyperparameters."""
    return [
        h for h, default in ESTIMATORS[name].hyperparameters.items() if isinstance(default, float)
    ]


ROW_AND_HYPERPARAMETER = [(name, h) for name in ROWS for h in real(name)]


def f(z, weights=WEIGHTS):
    """A smooth, bounded function with no symmetry; masked entries of a log law are -inf."""
    z = jnp.where(jnp.isinf(z), 0, z)
    return jnp.sum(jnp.tanh(z * jnp.asarray(weights, z.dtype) + jnp.asarray(0.3, z.dtype)) ** 2)


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


@pytest.mark.parametrize("name", ROWS)
def test_eager_is_jitted(name):
    assert_close(jitted(name)(KEY, params(name)), value_and_grad(name, KEY, params(name)))


@pytest.mark.parametrize("name", ROWS)
def test_vmap_over_keys_and_params(name):
    keys = jax.random.split(KEY, 3)
    logits = jnp.stack([params(name), params(name) / 2, -params(name)])
    batch = jax.jit(jax.vmap(functools.partial(value_and_grad, name)))(keys, logits)
    loop = [jitted(name)(key, l) for key, l in zip(keys, logits, strict=True)]
    assert_close(batch, jax.tree.map(lambda *x: jnp.stack(x), *loop))


@pytest.mark.parametrize("name, hyperparameter", ROW_AND_HYPERPARAMETER)
def test_vmap_over_hyperparameters(name, hyperparameter):
    values = jnp.asarray([0.3, 0.9, 2.0], DTYPE)
    sweep = lambda h: value_and_grad(name, KEY, params(name), **{hyperparameter: h})
    batch = jax.jit(jax.vmap(sweep))(values)
    assert_close(batch, jax.tree.map(lambda *x: jnp.stack(x), *[sweep(h) for h in values]))
    # The three differ; two draws of one law may be the same.
    assert len(np.unique(np.asarray(batch[1]).round(6), axis=0)) > 1


@pytest.mark.parametrize("name, hyperparameter", ROW_AND_HYPERPARAMETER)
def test_a_schedule_compiles_once(name, hyperparameter):
    traces = []

    @jax.jit
    def step(key, logits, h):
        traces.append(h)
        return value_and_grad(name, key, logits, **{hyperparameter: h})

    for h in np.linspace(0.2, 2, 5).astype(DTYPE):
        step(KEY, params(name), h)
    assert len(traces) == 1 == step._cache_size()


@pytest.mark.parametrize("name", ROWS)
def test_scan_and_checkpoint(name):
    keys = jax.random.split(KEY, 3)

    def total(l, wrap):
        step = wrap(lambda key: relaxjax.estimator(name)(key, f, l))
        _, values = jax.lax.scan(lambda carry, key: (carry, step(key)), None, keys)
        return jnp.sum(values)

    expected = sum(jitted(name)(key, params(name))[1] for key in keys)
    for wrap in (lambda step: step, jax.checkpoint):
        assert_close(jax.jit(jax.grad(functools.partial(total, wrap=wrap)))(params(name)), expected)


@pytest.mark.parametrize("name", ROWS)
def test_second_derivatives_are_finite_and_relaxed_ones_are_derivatives(name):
    """Oracle for a relaxed row: central differences of its gradient, at a fixed key."""
    logits = params(name)
    gradient = lambda l: jitted(name)(KEY, l)[1]
    second = jax.jit(jax.jacrev(lambda l: value_and_grad(name, KEY, l)[1]))(logits)
    assert np.all(np.isfinite(second)) and np.any(second != 0)
    # The bit of this row is discrete beside its relaxed factor.
    if ESTIMATORS[name].discrete_forward or name.endswith("stochastic_times_smooth") or not X64:
        return
    for i in np.ndindex(logits.shape):
        e = jnp.zeros_like(logits).at[i].set(1e-5)
        expected = (gradient(logits + e) - gradient(logits - e)) / 2e-5
        np.testing.assert_allclose(second[(..., *i)], expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ROWS)
def test_an_old_key_is_a_new_one(name):
    old, new = jax.random.PRNGKey(5), jax.random.key(5)
    assert_close(jitted(name)(old, params(name)), jitted(name)(new, params(name)), 0)


@pytest.mark.parametrize("name", ROWS)
def test_gradients_of_what_f_closes_over(name):
    """Oracle: the gradient of f at the very sample, by a second f that keeps it."""
    key, logits, w = jax.random.key(2), params(name), jnp.asarray(WEIGHTS, DTYPE)
    estimate = relaxjax.estimator(name)

    @jax.jit
    def both(w):
        loss = lambda w, l: estimate(key, lambda z: f(z, w), l)
        return jax.grad(loss)(w, logits), jax.grad(
            lambda w: loss(w, jax.lax.stop_gradient(logits))
        )(w)

    through, fixed = both(w)
    assert_close(through, fixed)
    e = jnp.zeros_like(w).at[1, 1].set(1e-3)
    loss = lambda w: estimate(key, lambda z: f(z, w), logits)
    np.testing.assert_allclose(
        through[1, 1], (loss(w + e) - loss(w - e)) / 2e-3, rtol=1e-2, atol=1e-3
    )


def test_one_device_and_eight_draw_the_same_bits():
    """All rows in one process of eight devices, the leading axis of the params sharded: the same
    discrete draws to the bit; what is computed from them to the rounding of a compiler."""
    program = """
import jax, jax.numpy as jnp, json, numpy as np, relaxjax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
mesh = Mesh(np.array(jax.devices()), "x")
differ = []
for name, row in relaxjax.catalog.ESTIMATORS.items():
    logits = jax.random.normal(jax.random.key(1), (16, 6))
    sharded = jax.device_put(logits, NamedSharding(mesh, PartitionSpec("x")))

    def loss(l):
        seen = []
        f = lambda z: jnp.sum(seen.append(jax.lax.stop_gradient(z)) or z**2)
        return row.estimate(jax.random.key(0), f, l), seen[0]

    run = jax.jit(jax.grad(loss, has_aux=True))
    (one, z_one), (eight, z_eight) = run(logits), run(sharded)
    assert len(eight.sharding.device_set) == 8
    same = np.array_equal if row.discrete_forward else np.allclose
    if not same(z_one, z_eight) or not np.allclose(one, eight, rtol=1e-5, atol=1e-6):
        differ.append(name)
print(json.dumps([len(jax.devices()), differ]))
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
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
        return value, (value, seen[0])

    run = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    extreme = jnp.asarray([[1e4, -1e4, 0.0], [-1e4, 5.0, 1e4]], dtype)
    logarithmic = "log" in name.split("/")[1]
    for logits in (extreme, params(name, dtype, MASKED)):
        for t in (1e-3, 1.0, 1e3):
            if dtype == "float16" and logarithmic and t < 1:
                continue  # y or log z is past 65,504
            hyperparameters = {h: jnp.asarray(t, dtype) for h in real(name)}
            (gradient, others), (value, z) = run(logits, hyperparameters)
            everything = [value, z, gradient, *others.values()]
            assert all(x.dtype == dtype for x in everything)
            if dtype == "float16":  # h log z / temperature is up to 1e10
                everything = everything[:3]
            for x in everything:
                x = np.asarray(x, float)
                # Infinite is only what the law makes so: log z, or logit z, of a mask.
                allowed = np.isinf(np.asarray(logits, float)) & logarithmic if x.ndim else False
                assert np.all(np.isfinite(x) | allowed), (logits, t)
            assert np.all(np.asarray(gradient)[np.isinf(np.asarray(logits, float))] == 0)


@pytest.mark.parametrize("name, hyperparameter", ROW_AND_HYPERPARAMETER)
def test_a_hyperparameter_outside_the_law_has_no_gradient(name, hyperparameter):
    estimate = lambda h: relaxjax.estimator(name, **{hyperparameter: h})(KEY, f, params(name))
    gradient = jax.grad(estimate)(jnp.asarray(0.7, DTYPE))
    depends = not ESTIMATORS[name].discrete_forward or (name, hyperparameter) in CHANGES_THE_LAW
    assert (gradient != 0) == depends and np.isfinite(gradient)


@pytest.mark.parametrize("name", ROWS)
def test_a_mask_is_certain(name):
    """In a masked class, or a bit that is sure: never drawn otherwise, and gradient exactly 0."""
    logits = params(name, table=MASKED)
    keys = jax.random.split(KEY, 200)
    estimate = relaxjax.estimator(name)
    infinite = jnp.isinf(logits)

    def one(key):
        g = jax.grad(lambda l: estimate(key, f, l))(logits)
        masked = lambda z: jnp.max(jnp.where(infinite & jnp.isfinite(z), z, 0))
        return g, estimate(key, masked, logits)

    gradients, largest = jax.jit(jax.vmap(one))(keys)
    assert np.all(np.isfinite(gradients)) and np.all(np.asarray(gradients)[:, infinite] == 0)
    assert np.all(largest == float(module(name) == "bernoulli" and "logit" not in name))


# ------------------------------------------------------------------------- the law and the bias


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n in ROWS if ESTIMATORS[n].discrete_forward])
def test_f_sees_the_discrete_law(name, dtype):
    """Chi-squared over every joint state, each variable's noise its own; exactly 0.0 and 1.0."""
    family, logits, draws = ESTIMATORS[name].family, params(name, dtype), 50_000
    support = family.support(logits)
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
    p = np.exp(np.asarray(jax.vmap(family.log_prob, (0, None))(support.astype(DTYPE), wide), float))
    counts = np.bincount(states, minlength=len(p))
    assert np.all(exact)
    assert stats.chisquare(counts, p / p.sum() * draws).pvalue > 1e-6


@pytest.mark.parametrize("name", ROWS)
def test_bias_is_as_stated(name):
    """Oracle: the gradient of the sum over all states. Unbiased rows within 5.5 standard errors in
    every coordinate, biased hard rows outside 8 in one, on a random network."""
    row = ESTIMATORS[name]
    if not (row.unbiased or row.discrete_forward):
        return  # a relaxed law has another E[f]
    logits = params(name)
    rng = np.random.default_rng(2)
    first, last = (
        jnp.asarray(rng.normal(size=(6, 8)), DTYPE),
        jnp.asarray(rng.normal(size=8), DTYPE),
    )
    network = lambda z: jnp.tanh(2 * (z.reshape(-1) @ first)) @ last
    support = row.family.support(logits)
    exact = jax.grad(
        lambda l: (
            jnp.exp(jax.vmap(row.family.log_prob, (0, None))(support, l))
            @ jax.vmap(network)(support)
        )
    )(logits)
    gradient = jax.grad(lambda l, key: relaxjax.estimator(name)(key, network, l))
    chunk = jax.jit(lambda keys: jax.vmap(gradient, (None, 0))(logits, keys))
    draws = np.concatenate(
        [chunk(keys) for keys in jax.random.split(jax.random.key(4), (200, 1000))]
    )
    z = np.abs(draws.mean(0) - exact) / (draws.std(0) / np.sqrt(len(draws)) + 1e-12)
    assert np.all(z < 5.5) if row.unbiased else np.any(z > 8)


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


@pytest.mark.parametrize("name", ROWS)
def test_residuals_are_of_the_size_of_the_output(name):
    """What the backward pass keeps: at most the sample and the params, whatever num_noise."""
    logits = jnp.zeros((100, 20), DTYPE)
    counts = {h: 50 for h, v in ESTIMATORS[name].hyperparameters.items() if isinstance(v, int)}
    estimate = relaxjax.estimator(name, **counts)
    # f is linear and keeps nothing of its own.
    _, back = jax.vjp(lambda l: estimate(KEY, jnp.sum, l), logits)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(back) if hasattr(leaf, "nbytes"))
    assert logits.nbytes / 2 < kept <= 3 * logits.nbytes + 4096


@pytest.mark.parametrize("name", ROWS)
def test_wrong_arguments_say_so(name):
    estimate = relaxjax.estimator(name)
    cases = [
        (lambda: estimate(KEY, f, jnp.ones((2, 3), int)), TypeError, "logits: got int"),
        (lambda: estimate(KEY, lambda z: z, params(name)), TypeError, "f: got a value float"),
        (
            lambda: estimate(KEY, lambda z: jnp.int32(1), params(name)),
            TypeError,
            "f: got a value int",
        ),
        (lambda: relaxjax.estimator(name, tau=1.0), TypeError, "tau: got it for"),
        (lambda: relaxjax.estimator(name + "s"), ValueError, f"'{name}s', need one of {name}"),
    ]
    for h in real(name):
        for bad in (-1.0, np.float32(-0.5), float("nan"), "warm", np.full(7, 0.5)):
            call = lambda h=h, bad=bad: relaxjax.estimator(name, **{h: bad})(KEY, f, params(name))
            cases.append((call, (TypeError, ValueError), f"^{h}: got"))
    for call, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            call()
        assert "need" in str(caught.value)
        with pytest.raises(kind, match=words):
            jax.jit(call)()


@pytest.mark.parametrize("name, hyperparameter", ROW_AND_HYPERPARAMETER)
def test_a_bad_traced_hyperparameter_gives_nan(name, hyperparameter):
    bad = jnp.asarray(-1.0, DTYPE)
    value, gradient = value_and_grad(name, KEY, params(name), **{hyperparameter: bad})
    assert np.isnan(value) or np.all(np.isnan(gradient))


@pytest.mark.parametrize("name", ROWS)
def test_the_row_agrees_with_its_function(name):
    """Its defaults are the function's, and it is documented."""
    import inspect

    law, function = name.split("/")
    sampler = getattr(getattr(relaxjax, law), function)
    defaults = {
        p.name: p.default
        for p in inspect.signature(sampler).parameters.values()
        if p.name != "shape"
    }
    given = {k: v for k, v in defaults.items() if v is not inspect.Parameter.empty}
    row = ESTIMATORS[name]
    assert dict(row.hyperparameters) == given
    assert row.kind in ("pathwise", "score") and row.reference and row.family.name == law
    for section in ("Law:", "Gradient:", "Bias:", "Source:"):
        assert section in sampler.__doc__
    assert_close(
        row.estimate(KEY, f, params(name)), relaxjax.estimator(name)(KEY, f, params(name)), 0
    )


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
