"""Oracles in NumPy's float64, which share no code with the library."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from relaxjax import Family, _rules, bernoulli, families

SIGNIFICANCE = 1e-6


def J(q):
    return np.diag(q) - np.outer(q, q)


def central(f, x, step=1e-6):
    """The gradient of a scalar NumPy function by central differences."""
    x = np.asarray(x, np.float64)
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = (f(up) - f(down)) / (2 * step)
    return gradient


def pullback(f, *args):
    """(g) -> the cotangents of args, by the rule under test."""
    return jax.vjp(f, *args)[1]


def with_slopes(f):
    """args -> f of them, entry by entry or row by row, and the slopes in each: one program."""

    @jax.jit
    def both(*args):
        value, back = jax.vjp(f, *args)
        return value, *back(jnp.ones_like(value))

    return both


def close(actual, expected, rtol=1e-7, atol=1e-12):
    """For figures that are printed to nine digits, the default; exact ones ask for less."""
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=rtol, atol=atol)


# ------------------------------------------------- score estimators: laws, draws and problems
# Bits, one-hots and k-hots are one exponential family, p(x) ~ exp <x, logits>: over a table of
# states the law is a softmax, and nothing below asks which of the three it is.


def bits(n):
    """(2^n, n)"""
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def one_hots(n, c):
    """(c^n, n, c)"""
    return np.array(list(itertools.product(np.eye(c), repeat=n)))


def k_hots(n, k):
    """(C(n, k), n)"""
    return np.array([np.isin(range(n), s) * 1.0 for s in itertools.combinations(range(n), k)])


def law(states, logits):
    """The probabilities of the states."""
    axes = tuple(range(1, states.ndim))
    return softmax(np.where(states > 0, logits, 0).sum(axes))


def expectation(states, logits, values):
    """E f and its gradient."""
    p = law(states, logits)
    mean = p @ values
    return mean, np.tensordot(p * (values - mean), states - np.tensordot(p, states, 1), 1)


def all_draws(states, logits, count):
    """Every way to draw count samples: (S^count, count, ...), and its probability."""
    indices = np.array(list(itertools.product(range(len(states)), repeat=count)))
    return states[indices], law(states, logits)[indices].prod(-1)


def mean_and_variance(weights, estimates):
    """The mean, and the total variance (the trace of the covariance)."""
    mean = np.tensordot(weights, estimates, 1)
    return mean, np.sum(np.tensordot(weights, (estimates - mean) ** 2, 1))


class Problem(NamedTuple):
    """Inputs of the reference, f(x) = (sum A x - c)^2, with its E f and gradient."""

    logits: np.ndarray
    states: np.ndarray
    A: np.ndarray
    c: float
    samples: np.ndarray
    value: float
    gradient: np.ndarray

    def f(self, x):
        return ((self.A * x).sum() - self.c) ** 2


B = Problem(
    np.array([0.5, -1, 2]),
    bits(3),
    np.array([1.0, 2, -1]),
    0.5,
    np.array([[1.0, 0, 1], [1, 1, 1], [0, 0, 1]]),
    1.17504540,
    np.array([-0.16117224, 0.19005473, -0.03366980]),
)
C = Problem(
    np.array([[0.2, -0.3, 0.5], [1, 0, -1]]),
    one_hots(2, 3),
    np.array([[1, 2, -1], [0.5, -1, 1.5]]),
    0.0,
    np.eye(3)[[[0, 1], [1, 2]]],
    2.35927144,
    np.array([[-0.10140349, 0.64544897, -0.54404548], [-0.13425564, -0.08020998, 0.21446563]]),
)
S = Problem(
    np.array([0.5, -1, 2, 0]),
    k_hots(4, 2),
    np.array([1, 2, -1, 0.5]),
    0.0,
    np.array([[1.0, 0, 1, 0], [0, 0, 1, 1]]),
    0.64356821,
    np.array([-0.00494825, 0.32512412, -0.39254589, 0.07237002]),
)
PROBLEMS = {"bernoulli": B, "categorical": C, "subsets": S}


def functions(shape, dtype=np.float64, seed=2):
    """Linear, quadratic and a random network of x of that shape."""
    rng = np.random.default_rng(seed)
    n = math.prod(shape)
    a, Q, W, v = (rng.normal(size=s).astype(dtype) for s in ((n,), (n, n), (n, 8), (8,)))
    return {
        "linear": lambda x: a @ x.reshape(-1),
        "quadratic": lambda x: x.reshape(-1) @ (Q @ x.reshape(-1)) + a @ x.reshape(-1),
        "network": lambda x: jnp.tanh(2 * (x.reshape(-1) @ W)) @ v,
    }


class Case(NamedTuple):
    """An estimator at a fixed draw, and what it must give there.

    Fields:
      law: of PROBLEMS, whose f and logits are used.
      core: (f, logits, family, phi) -> the estimator's scalar.
      points: the samples that f is evaluated at and that the value is made of.
      gradient: in logits; None where it is printed nowhere.
      phi: hyperparameters whose gradient is that of S = |gradient|^2.
      slopes: dS/dphi, where the reference prints it.
      value: of f at the points.
    """

    law: str
    core: Callable
    points: np.ndarray
    gradient: object
    phi: dict[str, object] = {}
    slopes: dict[str, float] = {}
    value: Callable = jnp.mean


def check_case(case, family):
    """Value, gradient and dS against the reference; second derivatives in logits and
    hyperparameters are NaN, whatever the transformation."""
    problem = PROBLEMS[case.law]
    scalar = lambda l, phi: case.core(problem.f, l, family, phi)
    gradient = jax.grad(scalar, argnums=(0, 1))

    @jax.jit
    def derivatives(l, phi):
        first = jax.value_and_grad(scalar, argnums=(0, 1))(l, phi)
        slope = jax.jvp(lambda l: scalar(l, phi), (l,), (jnp.ones_like(l),))[1]
        reverse = jax.jacrev(gradient, argnums=(0, 1))(l, phi)
        return first, slope, reverse, jax.jacfwd(gradient, argnums=(0, 1))(l, phi)

    (value, (first, slopes)), slope, *second = derivatives(problem.logits, case.phi)
    close(value, case.value(jax.vmap(problem.f)(case.points)), rtol=1e-13)
    if case.gradient is not None:
        close(first, case.gradient, rtol=1e-7, atol=6e-9)
    for name, expected in case.slopes.items():
        close(slopes[name], expected, rtol=1e-7)
    close(slope, np.sum(first), rtol=1e-12, atol=1e-14)
    assert all(np.all(np.isnan(leaf)) for leaf in jax.tree.leaves(second))


def check_variance_gradient(case, family):
    """Central differences of S in every hyperparameter."""
    problem = PROBLEMS[case.law]
    flat, unravel = jax.flatten_util.ravel_pytree(case.phi)
    network = functions(problem.logits.shape)["network"]
    both = jax.jit(
        jax.grad(lambda l, phi: case.core(network, l, family, unravel(phi)), argnums=(0, 1))
    )
    S = lambda phi: np.sum(np.asarray(both(problem.logits, phi)[0]) ** 2)
    close(both(problem.logits, flat)[1], central(S, flat, 1e-5), rtol=1e-7, atol=1e-8)


def check_closures(case, family):
    """What f closes over gets the derivative of the value at the points, and nothing more."""
    problem = PROBLEMS[case.law]
    w = np.linspace(0.2, 1.1, problem.logits.size).reshape(problem.logits.shape)
    f = lambda w: lambda x: jnp.sum(jnp.tanh(w * (x + 0.3)) + w * x)
    core = lambda w, l: case.core(f(w), l, family, case.phi)
    both = lambda l: core(l, l)
    expected = jax.grad(lambda w: case.value(jax.vmap(f(w))(case.points)))

    @jax.jit
    def all_of_it(w, l):
        # Closing over the parameters adds the value's explicit derivative to the estimator.
        difference = jax.grad(both)(l) - jax.grad(core, argnums=1)(l, l)
        return jax.grad(core)(w, l), expected(w), difference, expected(l)

    decoder, decoder_expected, difference, explicit = all_of_it(w, problem.logits)
    close(decoder, decoder_expected, rtol=1e-14, atol=1e-16)
    close(difference, explicit, rtol=1e-12, atol=1e-14)


def check_variance(core, problem, count, variance):
    """Every draw of count samples: the mean is the gradient; the total variance."""
    x, weights = all_draws(problem.states, problem.logits, count)
    gradient = jax.jit(jax.vmap(jax.grad(lambda l, x: core(x, l)), (None, 0)))
    mean, total = mean_and_variance(weights, np.asarray(gradient(problem.logits, x)))
    values = np.array([problem.f(x) for x in problem.states])
    close(mean, expectation(problem.states, problem.logits, values)[1], rtol=0, atol=1e-13)
    if variance is not None:
        close(total, variance, rtol=0, atol=6e-9 * max(1, variance))


def check_transformations(estimate, logits):
    """f over traced weights, data by vmap, in scan and checkpoint: the sum of plain calls."""
    rng = np.random.default_rng(4)
    data = rng.normal(size=(2, 3, *logits.shape))
    keys = jax.random.split(jax.random.key(5), (2, 3))
    w = rng.normal(size=logits.shape)

    def loss(w, l, key, x0):
        return estimate(key, lambda x: jnp.sum(jnp.tanh(w * (x - x0))) ** 2, l)

    def batch(args, inputs):
        return args, jnp.sum(jax.vmap(jax.checkpoint(loss), (None, None, 0, 0))(*args, *inputs))

    one = jax.jit(jax.value_and_grad(loss, (0, 1)))
    plain = [one(w, logits, k, d) for ks, ds in zip(keys, data) for k, d in zip(ks, ds)]  # noqa: B905
    total = lambda *args: jnp.sum(jax.lax.scan(batch, args, (keys, data))[1])
    expected = jax.tree.map(lambda *leaves: sum(leaves), *plain)
    jax.tree.map(
        lambda ours, sum_of_calls: close(ours, sum_of_calls, rtol=1e-11, atol=1e-12),
        jax.jit(jax.value_and_grad(total, (0, 1)))(w, logits),
        expected,
    )
    assert np.all(np.abs(expected[1][0]) > 0)


EXTREME = {
    "bernoulli": np.array([30, -30, 1e4, -1e4, np.inf, -np.inf, 0, 1]),
    "categorical": np.array(
        [[30, -30, 0], [1e4, -1e4, 0], [-np.inf, 1, 2], [-np.inf, 0, -np.inf], [0, 1, -1]]
    ),
    "subsets": np.array([30, 30, 1e4, -1e4, -np.inf, 0, -30]),
    "one categorical": np.array([1e4, 1e4, 30, -30, -1e4, -np.inf, 1]),
}


def check_extremes(estimate, law_name, dtype):
    """Finite at a thousand draws, exactly 0 where masked, in the dtypes of f and logits."""
    l = jnp.asarray(EXTREME[law_name], dtype)
    a = jnp.asarray(np.cos(np.arange(l.size)).reshape(l.shape), dtype)
    each = jax.value_and_grad(lambda l, key: estimate(key, lambda x: jnp.sum(jnp.tanh(a * x)), l))
    keys = jax.random.split(jax.random.key(6), 1_000)
    value, gradient = jax.jit(jax.vmap(each, (None, 0)))(l, keys)
    assert value.dtype == gradient.dtype == dtype
    value, gradient = (np.asarray(x, np.float64) for x in (value, gradient))
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))
    assert np.all(gradient[:, np.isinf(EXTREME[law_name])] == 0)
    assert np.any(gradient != 0)
    return gradient.mean(0)


# ------------------------------------------------------------------------------- rules of a draw


def hard_rule(rule):
    """A hard draw with that rule: (draw, *params) -> draw."""
    return functools.partial(_rules.hard, rule)


def of_noise(rule):
    """A rule of x = logits + noise as a function of both: (noise, logits, *rest) -> sample."""
    return lambda noise, logits, *rest: rule(logits + noise, *rest)


# ------------------------------------------------------------------------------ a user's own law
# Independent bits of probability s(l / 2), written out as a user would: l is no natural parameter,
# so that a score is (x - p) / 2. With l twice the logits of a bit, every estimator has to give half
# of what it gives there, draw by draw.


def halved_bits(l):
    """The family's fields but name, for params l, an array, or whatever l makes one of."""
    p = lambda params: jax.nn.sigmoid(l(params) / 2)

    def log_prob(x, params):
        ones, zeros = jax.nn.log_sigmoid(l(params) / 2), jax.nn.log_sigmoid(-l(params) / 2)
        return jnp.sum(jnp.where(x > 0, ones, zeros))

    def support(params):
        shape = l(params).shape
        states = itertools.product([0.0, 1.0], repeat=math.prod(shape))
        return jnp.array(list(states)).reshape(-1, *shape)

    def neighbors(x, params):
        return (1 - 2 * x)[None], jnp.where(x > 0, 1 - p(params), p(params))[None]

    def given(fresh, x, params):
        sign, v = 2 * x - 1, jax.nn.sigmoid(fresh)
        return sign * (jnp.log1p(jnp.exp(sign * l(params) / 2 + jnp.log(v))) - jnp.log1p(-v))

    return {
        "sample": lambda key, params: jnp.asarray(jax.random.bernoulli(key, p(params)), float),
        "log_prob": log_prob,
        "mean": p,
        "support": support,
        "event_ndim": 0,
        "variance": lambda u, params: jnp.sum(u**2 * p(params) * (1 - p(params))),
        "neighbors": neighbors,
        "relaxation": families.Relaxation(
            noise=lambda key, params: jax.random.logistic(key, l(params).shape),
            hard=lambda noise, params: jnp.asarray(l(params) / 2 + noise > 0, float),
            free=lambda noise, params: l(params) / 2 + noise,
            given=given,
            relax=lambda z, temperature: jax.nn.sigmoid(z / temperature),
        ),
    }


HALVED = Family(name="halved", **halved_bits(lambda l: l))
# Params {"a": l / 3, "b": 2 l / 3}.
HALVED_TREE = Family(name="tree", **halved_bits(lambda params: params["a"] + params["b"]))


def check_halved(core, count, l=B.logits):
    """core(x, l, family): on every draw of count bits of probability s(l), half of the library's
    gradient at 2 l; their mean is half of the gradient of E[f]."""
    x, weights = all_draws(bits(len(l)), l, count)
    both = lambda x: (
        jax.grad(lambda l: core(x, l, HALVED))(2 * l),
        jax.grad(lambda l: core(x, l, bernoulli.family))(l),
    )
    ours, natural = jax.jit(jax.vmap(both))(x)
    close(ours, natural / 2, rtol=1e-10, atol=1e-13)
    values = np.array([B.f(y) for y in B.states])
    close(weights @ ours, expectation(B.states, l, values)[1] / 2, rtol=0, atol=1e-13)


def check_tree(estimate, l=B.logits):
    """estimate(params, family): both leaves of a pytree get the gradient of their sum."""
    tree = {"a": 2 * l / 3, "b": 4 * l / 3}
    expected = jax.jit(jax.value_and_grad(lambda l: estimate(l, HALVED)))(2 * l)
    value, gradient = jax.jit(jax.value_and_grad(lambda p: estimate(p, HALVED_TREE)))(tree)
    close(value, expected[0], rtol=1e-12)
    for leaf in gradient.values():
        close(leaf, expected[1], rtol=1e-10, atol=1e-13)


def check_fields(estimator, fields, estimate):
    """estimate(family) raises ValueError that names each field that is None, and the estimator; a
    name does not help."""
    for field in fields:
        for name in ("halved", "bernoulli", "categorical", "subsets"):
            family = dataclasses.replace(HALVED, name=name, **{field: None})
            words = f"family: got {name}, whose {field} is None, need .*{field} for {estimator};"
            with pytest.raises(ValueError, match=words):
                estimate(family)
    others = {field for field in OPTIONAL if field not in fields}
    estimate(dataclasses.replace(HALVED, **dict.fromkeys(others)))


OPTIONAL = [f.name for f in dataclasses.fields(Family) if f.default is None]
