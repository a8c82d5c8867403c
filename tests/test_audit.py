"""The audit: every row of the catalog by it, and itself on estimators that are wrong."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import (
    B,
    close,
    functions,
)
from rows import ONE_OF_EACH, mostly_thorough, row

from relaxjax import Family, audit, bernoulli, categorical, families, score
from relaxjax.catalog import ESTIMATORS

KEY = jax.random.key(7)
stop = jax.lax.stop_gradient
SHAPES = {"bernoulli": (5,), "correlated": (5,), "categorical": (3, 4), "subsets": (5,)}
ENUMERABLE = [name for name in ESTIMATORS if ESTIMATORS[name].law in SHAPES]
DISCRETE = [name for name in ENUMERABLE if ESTIMATORS[name].target == "discrete"]
# But for exact, which is the audit's reference.
UNBIASED = [
    name
    for name in DISCRETE
    if ESTIMATORS[name].bias == "none" and ESTIMATORS[name].method != "exact"
]
BIASED = [name for name in DISCRETE if ESTIMATORS[name].bias != "none"]


def setup(name):
    """The row, its family and logits of the audit's shape."""
    shape = (6,) if name == "categorical/unordered_set" else SHAPES[ESTIMATORS[name].law]
    return row(name), row(name).family, np.random.default_rng(1).normal(size=shape)


# ------------------------------------------------------------------------------ the catalog's rows


@pytest.mark.once
@pytest.mark.thorough
@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_rows(name):
    """A million draws of a linear, a quadratic and a random network's part in one. Of fewer draws:
    test_contract.py."""
    estimate, family, logits = setup(name)
    parts = functions(logits.shape).values()
    f = lambda x: sum(part(x) for part in parts)
    result = audit.measure(KEY, estimate, f, logits, family=family, num_draws=1_000_000)
    assert np.all(np.abs(result.z) < 5.5), f"\n{result}"
    assert np.any(np.abs(result.reference_gradient) > 0.1)
    assert np.all(np.isfinite(result.std))


FEW_BIASED = ["bernoulli/zgr", "categorical/zgr", "categorical/gapped_straight_through"]
FEW_BIASED += ["correlated/straight_through", "subsets/simple"]


@pytest.mark.once
@pytest.mark.parametrize("name", mostly_thorough(BIASED, FEW_BIASED))
def test_biased_rows(name):
    estimate, family, logits = setup(name)
    f = functions(logits.shape)["network"]
    result = audit.measure(KEY, estimate, f, logits, family=family, num_draws=20_000)
    assert np.any(np.abs(result.z) > 8), f"\n{result}"


@pytest.mark.optimized
@pytest.mark.parametrize("name", [name for name in ONE_OF_EACH if name in ENUMERABLE])
def test_chunks_add_up(name):
    """Oracle: one vmap of all keys; jaxlib has returned wrong numbers inside loops of chunks."""
    estimate, family, logits = setup(name)
    f = functions(logits.shape)["network"]
    num_draws = 2_500
    result = audit.measure(KEY, estimate, f, logits, family=family, num_draws=num_draws)
    each = jax.value_and_grad(lambda l, key: estimate(key, f, l))
    values, gradients = jax.jit(jax.vmap(each, (None, 0)))(logits, jax.random.split(KEY, num_draws))
    gradients = np.asarray(gradients)
    std = gradients.std(0, ddof=1)
    close(result.value, np.mean(values), rtol=1e-9)
    close(result.gradient, gradients.mean(0), rtol=1e-9)
    close(result.std, std, rtol=1e-8)
    close(result.standard_error, std / np.sqrt(num_draws), rtol=1e-8)
    close(result.bias, result.gradient - result.reference_gradient, rtol=1e-12)
    noise = np.sqrt(np.sum(std**2))
    if noise > 1e-12:
        close(result.signal_to_noise, np.linalg.norm(gradients.mean(0)) / noise, rtol=1e-8)
    assert result.evaluations == estimate.evaluations(logits.shape)


# --------------------------------------------------------------------------------- wrong estimators


def carry(value, l, g):
    return stop(value) + jnp.sum(stop(g) * (l - stop(l)))


def bits_rloo(key, f, l, *, factor=1.0, num_samples=2, shared=False):
    shape = (num_samples, *((1,) if shared else l.shape))
    u = jax.random.uniform(key, shape, l.dtype)
    x = jnp.asarray(u < jax.nn.sigmoid(l)[None], l.dtype)
    F = jax.vmap(f)(x)
    weights = factor * (F - F.mean()) / (num_samples - 1)
    return carry(F.mean(), l, weights @ (x - jax.nn.sigmoid(l)[None]))


def bits_double_cv(key, f, l, *, own=False, sigma=True):
    p = jax.nn.sigmoid(l)
    x = jnp.asarray(jax.random.uniform(key, (2, *l.shape), l.dtype) < p[None], l.dtype)
    F, V = jax.vmap(jax.value_and_grad(f))(x)
    t = F - jnp.sum((V if own else V[::-1]) * (x - p[None]), -1)
    g = (t - t.mean()) @ (x - p[None]) + (p * (1 - p) if sigma else 1.0) * V.mean(0)
    return carry(F.mean(), l, g)


def bits_disarm(key, f, l, *, sign=1.0):
    e = jax.random.logistic(key, l.shape, l.dtype)
    b, c = (jnp.asarray(z > 0, l.dtype) for z in (l + e, l - e))
    g = sign * (f(b) - f(c)) * (b - c) * jax.nn.sigmoid(jnp.abs(l)) / 2
    return carry((f(b) + f(c)) / 2, l, g)


def bits_arms(key, f, l, *, rho=True):
    """Three samples of the Dirichlet copula."""
    d = jax.random.exponential(key, (3, *l.shape), l.dtype)
    d = d / d.sum(0, keepdims=True)
    q = jax.nn.sigmoid(-jnp.abs(l))
    r = jnp.asarray((1 - d) ** 2 < q[None], l.dtype)
    x = jnp.where((l < 0)[None], r, 1 - r)
    F = jax.vmap(f)(x)
    J = jnp.maximum(0, 2 * jnp.sqrt(q) - 1) ** 2
    factor = q * (1 - q) / (q - J) if rho else 1.0
    g = factor * ((F - F.mean()) @ (x - jax.nn.sigmoid(l)[None])) / 2
    return carry(F.mean(), l, g)


def classes_relax(key, f, l, *, normalized=True, own_noise=False):
    """A critic far from f; z given b by the reference."""
    noise, fresh = jax.random.gumbel(key, (2, *l.shape), l.dtype)
    critic = lambda z: jnp.sum(jnp.tanh(z) * jnp.arange(z.size, dtype=z.dtype).reshape(z.shape))
    b = jax.nn.one_hot(jnp.argmax(l + noise, -1), l.shape[-1], dtype=l.dtype)
    fresh = noise if own_noise else fresh

    def z_given_b(l):
        lp = jax.nn.log_softmax(l)
        top = jnp.sum(b * fresh, -1, keepdims=True)
        return jnp.where(b > 0, top, -jnp.logaddexp(-((lp if normalized else l) + fresh), -top))

    dz = jax.grad(lambda l: critic(jax.nn.log_softmax(l) + noise) - critic(z_given_b(l)))(l)
    g = (f(b) - critic(z_given_b(l))) * (b - jax.nn.softmax(l)) + dz
    return carry(f(b), l, g)


def class_set(key, f, l, *, weights="right"):
    """Three of C classes without replacement, by all their orders."""
    from itertools import permutations

    C = len(l)
    chosen = jax.lax.top_k(l + jax.random.gumbel(key, l.shape, l.dtype), 3)[1]
    p = jax.nn.softmax(l)[chosen]
    F = jax.vmap(f)(jnp.eye(C, dtype=l.dtype)[chosen])

    def completed(first):
        """P(the set | first drawn so far)."""
        total = jnp.zeros((), l.dtype)
        for order in permutations([i for i in range(3) if i not in first]):
            gone, product = sum((p[i] for i in first), jnp.zeros((), l.dtype)), 1.0
            for i in order:
                product, gone = product * p[i] / (1 - gone), gone + p[i]
            total = total + product
        return total

    w = jnp.stack([p[s] * completed([s]) / completed([]) for s in range(3)])
    baselines = []
    for s in range(3):
        others = [t for t in range(3) if t != s]
        if weights == "right":
            terms = [p[t] * completed([s, t]) / completed([s]) * F[t] for t in others]
            baselines.append(p[s] * F[s] + sum(terms))
        elif weights == "not leave-one-out":
            baselines.append(w @ F)
        else:
            terms = [p[t] / (1 - p[s]) * completed([s, t]) / completed([s]) * F[t] for t in others]
            baselines.append(p[s] * F[s] + sum(terms))
    e = jnp.eye(C, dtype=l.dtype)[chosen]
    g = (w * (F - jnp.stack(baselines))) @ (e - jax.nn.softmax(l)[None])
    return carry(w @ F, l, g)


RIGHT = {
    "bernoulli": [bits_rloo, bits_double_cv, bits_disarm, bits_arms],
    "categorical": [classes_relax],
    "one categorical": [class_set],
}
WRONG = {
    "half gradient": ("bernoulli", bits_rloo, {"factor": 0.5}),
    "K for K - 1": ("bernoulli", bits_rloo, {"factor": 2 / 3, "num_samples": 3}),
    "shared noise": ("bernoulli", bits_rloo, {"shared": True}),
    "v_k of x_k's own gradient": ("bernoulli", bits_double_cv, {"own": True}),
    "Sigma dropped": ("bernoulli", bits_double_cv, {"sigma": False}),
    "sign of b - b'": ("bernoulli", bits_disarm, {"sign": -1.0}),
    "rho = 1": ("bernoulli", bits_arms, {"rho": False}),
    "z' of unnormalized logits": ("categorical", classes_relax, {"normalized": False}),
    "z' of z's own noise": ("categorical", classes_relax, {"own_noise": True}),
    "w_t in B_s": ("one categorical", class_set, {"weights": "not leave-one-out"}),
    "p_t / (1 - p_s) in B_s": ("one categorical", class_set, {"weights": "of the rest"}),
}
INPUTS = {  # family and logits
    "bernoulli": (bernoulli.family, np.random.default_rng(1).normal(size=5)),
    "categorical": (categorical.family, np.random.default_rng(1).normal(size=(3, 4)) + 1),
    "one categorical": (categorical.family, np.array([0.2, -0.3, 0.5, 1])),
}


def largest_z(law, estimator):
    """Of 50,000 draws, which catch each of the wrong ones."""
    family, logits = INPUTS[law]
    f = functions(logits.shape)["network"]
    result = audit.measure(KEY, estimator, f, logits, family=family, num_draws=50_000)
    return np.max(np.abs(result.z))


@pytest.mark.once
@pytest.mark.parametrize("law, estimator", [(law, e) for law in RIGHT for e in RIGHT[law]])
def test_the_right_ones_of_this_file_pass(law, estimator):
    assert largest_z(law, estimator) < 5.5


@pytest.mark.once
@pytest.mark.parametrize("name", WRONG)
def test_wrong_estimators_are_caught(name):
    law, estimator, mistake = WRONG[name]
    assert largest_z(law, functools.partial(estimator, **mistake)) > 8


def vimco(key, log_w, l, *, left_in):
    """Its gradient with L_k free of f_k, or with f_k replaced by the mean of all."""
    p, K = jax.nn.sigmoid(l), 3
    x = jnp.asarray(jax.random.uniform(key, (K, *l.shape), l.dtype) < p[None], l.dtype)
    F = jax.vmap(log_w)(x)
    replacement = jnp.full(K, F.mean()) if left_in else (F.sum() - F) / (K - 1)
    M = jnp.where(np.eye(K, dtype=bool), replacement[:, None], F[None, :])
    L = jax.nn.logsumexp(F) - np.log(K)
    return carry(L, l, (L - jax.nn.logsumexp(M, axis=1) + np.log(K)) @ (x - p[None]))


@pytest.mark.once
@pytest.mark.parametrize("num_draws", mostly_thorough([100_000, 1_000_000], [100_000]))
def test_vimco_by_the_family_of_three_samples(num_draws):
    """E of the bound is that of a function of three joint samples with one l."""
    wide = lambda l: jnp.broadcast_to(l, (3, *l.shape))
    three = Family(
        "three",
        lambda key, l: bernoulli.family.sample(key, wide(l)),
        lambda x, l: bernoulli.family.log_prob(x, wide(l)),
        support=lambda l: bernoulli.family.support(wide(l)),
    )
    log_w = lambda x: -0.3 * B.f(x)
    bound = lambda x: jax.nn.logsumexp(jax.vmap(log_w)(x)) - np.log(3)
    ours = lambda key, f, l: -score.vimco(key, log_w, l, family=bernoulli.family, num_samples=3)
    hand = lambda left_in: lambda key, f, l: vimco(key, log_w, l, left_in=left_in)
    arguments = dict(family=three, num_draws=num_draws)
    z = lambda estimator: np.max(
        np.abs(audit.measure(KEY, estimator, bound, B.logits, **arguments).z)
    )
    assert z(ours) < 5.5 and z(hand(False)) < 5.5 and z(hand(True)) > 8


def test_a_tiny_bias_in_float32_is_seen():
    """No absolute floor: a constant gradient that is 1e-4 off, then half of a tiny gradient."""
    l = jnp.asarray(B.logits, jnp.float32)
    f = lambda x: 1e-3 * jnp.sum(x)
    exact = jax.jit(jax.grad(lambda l: score.exact(KEY, f, l, family=bernoulli.family)))(l)
    off = lambda factor: lambda key, f, l: carry(f(l), l, factor * exact)
    for factor, seen in ((0.5, True), (0.99, True), (1.0, False)):
        result = audit.measure(KEY, off(factor), f, l, family=bernoulli.family, num_draws=1_000)
        assert np.all(np.abs(result.z) > 8) if seen else np.all(result.z == 0)


# ---------------------------------------------------------------------------- its other reference


@pytest.mark.thorough
def test_monte_carlo_agrees_with_enumeration():
    f = functions((5,))["network"]
    l = INPUTS["bernoulli"][1]
    estimate = lambda key, f, l: score.rloo(key, f, l, family=bernoulli.family, num_samples=3)
    arguments = dict(family=bernoulli.family, num_draws=20_000)
    exact = audit.measure(KEY, estimate, f, l, **arguments)
    sampled = audit.measure(KEY, estimate, f, l, **arguments, reference="monte_carlo")
    assert np.all(np.abs(exact.z) < 5.5) and np.all(np.abs(sampled.z) < 5.5)
    close(sampled.gradient, exact.gradient, rtol=1e-12)
    close(sampled.std, exact.std, rtol=1e-12)
    # The reference's own error: it is RLOO-2 over as many fresh keys.
    own = np.sqrt(sampled.standard_error**2 - exact.standard_error**2)
    assert np.all(own > exact.standard_error)
    error = np.abs(sampled.reference_gradient - exact.reference_gradient)
    assert np.all(error < 5.5 * own) and np.all(error > 0)
    rloo = lambda key, f, l: score.rloo(key, f, l, family=bernoulli.family)
    close(own, audit.measure(KEY, rloo, f, l, **arguments).standard_error, rtol=0.05)
    # Its draws are its own: of one estimator by the same draws the bias would be 0.
    itself = audit.measure(KEY, rloo, f, l, **arguments, reference="monte_carlo")
    assert np.all(np.abs(itself.bias) > 0.01 * itself.standard_error)
    half = lambda *a: estimate(*a) / 2
    sampled = audit.measure(KEY, half, f, l, **arguments, reference="monte_carlo")
    assert np.any(np.abs(sampled.z) > 8)


class Normal:
    """As much of a distribution as RLOO needs, with a pytree of params."""

    def __init__(self, params):
        self.loc, self.scale = params["loc"], jnp.exp(params["log_scale"])

    def sample(self, seed):
        return self.loc + self.scale * jax.random.normal(seed, self.loc.shape, self.loc.dtype)

    def log_prob(self, x):
        return -(((x - self.loc) / self.scale) ** 2) / 2 - jnp.log(self.scale)


def test_pytrees_and_laws_without_a_support():
    """Oracle: E sum x^2 = loc^2 + scale^2. Beyond enumeration, and its bits at D = 30."""
    family = families.from_distribution(Normal)
    params = {"loc": np.array([0.3, -1.0]), "log_scale": np.array([0.1, -0.5])}
    estimate = lambda key, f, l: score.rloo(key, f, l, family=family, num_samples=4)
    f = lambda x: jnp.sum(x**2)
    result = audit.measure(
        KEY, estimate, f, params, family=family, num_draws=50_000, reference="monte_carlo"
    )
    expected = {"loc": 2 * params["loc"], "log_scale": 2 * np.exp(2 * params["log_scale"])}
    for name in params:
        assert np.all(np.abs(result.z[name]) < 5.5)
        error = np.abs(result.gradient[name] - expected[name])
        assert np.all(error < 5.5 * result.std[name] / np.sqrt(50_000))
        assert result.std[name].shape == (2,) and name in str(result)
    assert result.evaluations == 4
    with pytest.raises(ValueError, match="family: got .*need"):
        audit.measure(KEY, estimate, f, params, family=family, num_draws=10)
    bits30 = lambda reference: audit.measure(
        KEY,
        lambda key, f, l: score.disarm(key, f, l),
        lambda x: jnp.sum(x),
        np.zeros(30),
        family=bernoulli.family,
        num_draws=10_000,
        reference=reference,
    )
    assert np.all(np.abs(bits30("monte_carlo").z) < 5.5)
    with pytest.raises(ValueError, match="params: got 30 variables .*need at most"):
        bits30("exact")


# --------------------------------------------------------------------------------------- the result


def test_no_variance_is_no_nan():
    f = functions((4,))["linear"]
    l = INPUTS["one categorical"][1]
    exact = lambda key, f, l: score.exact(key, f, l, family=categorical.family)
    result = audit.measure(KEY, exact, f, l, family=categorical.family, num_draws=100)
    assert np.all(result.z == 0) and np.max(np.abs(result.bias)) < 1e-12
    half = audit.measure(
        KEY, lambda *a: exact(*a) / 2, f, l, family=categorical.family, num_draws=100
    )
    assert np.all(np.abs(half.z) > 8)
    assert "nan" not in str(result) and "nan" not in str(half)


def test_the_table_is_readable(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)  # the bar is an extra
    estimate, family, logits = setup("categorical/rloo")
    f = functions(logits.shape)["network"]
    result = audit.measure(KEY, estimate, f, logits, family=family, num_draws=3_000)
    lines = str(result).splitlines()
    for word in ("gradient", "bias", "standard error", "std"):
        assert word in lines[0]
    assert "2" in lines[-1] and "evaluations" in str(result)
    assert len(lines) >= 1 + logits.size and len({len(line) for line in lines[: logits.size]}) == 1
    assert f"{result.gradient[1, 2]:.3g}"[:5] in str(result)


def test_errors_name_the_argument():
    estimate, family, logits = setup("bernoulli/rloo")
    f = functions(logits.shape)["linear"]
    good = dict(family=family, num_draws=100)
    cases = [
        (ValueError, "reference: got 'bayes'.*need", {"reference": "bayes"}),
        (ValueError, "num_draws: got 1.*need", {"num_draws": 1}),
        (TypeError, "num_draws: got 10.5.*need", {"num_draws": 10.5}),
    ]
    for kind, words, change in cases:
        with pytest.raises(kind, match=words):
            audit.measure(KEY, estimate, f, logits, **{**good, **change})
    for kind, bad in ((ValueError, lambda x: x), (TypeError, lambda x: jnp.int32(1))):
        with pytest.raises(kind, match="f: got .*need"):
            audit.measure(KEY, estimate, bad, logits, **good)
