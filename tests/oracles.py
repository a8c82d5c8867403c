"""Oracles in NumPy's float64, which share no code with the library."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from relaxjax import _rules

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
      gradient: in logits.
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


def check_oracle(case, family):
    """Value, gradient and dS against the reference."""
    problem = PROBLEMS[case.law]
    scalar = functools.partial(case.core, problem.f)
    value, (gradient, slopes) = jax.jit(
        jax.value_and_grad(lambda l, phi: scalar(l, family, phi), argnums=(0, 1))
    )(problem.logits, case.phi)
    close(value, case.value(jax.vmap(problem.f)(case.points)), rtol=1e-13)
    close(gradient, case.gradient, rtol=1e-7, atol=6e-9)
    for name, slope in case.slopes.items():
        close(slopes[name], slope, rtol=1e-7)


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
        return jax.grad(core)(w, l), expected(w), jax.grad(both)(l), expected(l)

    l = problem.logits
    decoder, decoder_expected, total, explicit = all_of_it(w, l)
    close(decoder, decoder_expected, rtol=1e-14, atol=1e-16)
    # Closing over the parameters adds the value's explicit derivative to the estimator.
    estimator = jax.jit(jax.grad(core, argnums=1))(l, l)
    close(total - estimator, explicit, rtol=1e-12, atol=1e-14)


def check_second_derivatives(case, family):
    """0 in logits and hyperparameters; the transformations that give them run."""
    problem = PROBLEMS[case.law]
    args = problem.logits, case.phi
    scalar = lambda l, phi: case.core(problem.f, l, family, phi)
    gradient = jax.grad(scalar, argnums=(0, 1))

    @jax.jit
    def derivatives(l, phi):
        slope = jax.jvp(lambda l: scalar(l, phi), (l,), (jnp.ones_like(l),))[1]
        reverse = jax.jacrev(gradient, argnums=(0, 1))(l, phi)
        return gradient(l, phi), slope, reverse, jax.jacfwd(gradient, argnums=(0, 1))(l, phi)

    first, slope, *second = derivatives(*args)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(second))
    close(slope, np.sum(first[0]), rtol=1e-12, atol=1e-14)


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
