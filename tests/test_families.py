"""Every family against its enumerated law, and `from_distribution` with others' distributions."""

import functools
import itertools
import math
import pathlib
import pickle
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, bits, central, close, k_hots, one_hots
from scipy import stats
from scipy.special import expit, softmax

from relaxjax import bernoulli, categorical, counts, families, score, subsets, top_k

KEY = jax.random.key(0)
L23 = np.array([[0.3, -1.2, 0.8], [0.1, 2.0, -0.4]])
L24 = np.array([[0.3, -1.2, 0.8, 0.5], [0.1, 2.0, -0.4, 0.7]])
VALUES = np.array([1.0, -0.5, 4.0])


class Law(NamedTuple):
    """A family, and the law of one of its variables in NumPy.

    Fields:
      family: the family.
      params: of a few variables.
      event: how many axes of params belong to one variable.
      points: the values of one variable.
      probabilities: the params of one variable -> those of its points.
      large: params that are too many to enumerate, and what the error says of them.
    """

    family: families.Family
    params: np.ndarray
    event: int
    points: np.ndarray
    probabilities: Callable
    large: tuple


def plackett_luce(logits):
    """Of the pairs of four items, by both of their orders."""
    p = softmax(logits)
    order = lambda i, j: p[i] * p[j] / (1 - p[i])
    pairs = itertools.combinations(range(4), 2)
    return np.array([order(i, j) + order(j, i) for i, j in pairs])


def truncated(log_weights):
    return lambda x: softmax(log_weights(np.arange(4), x))


LAWS = {
    "bernoulli": Law(
        bernoulli.family,
        L23[:, :2],
        0,
        bits(1)[:, 0],
        lambda l: np.array([expit(-l), expit(l)]),
        (np.zeros(21), "21 variables of 2 values"),
    ),
    "categorical": Law(
        categorical.family,
        L23,
        1,
        one_hots(1, 3)[:, 0],
        softmax,
        (np.zeros((7, 8)), "7 variables of 8 values"),
    ),
    "subsets": Law(
        subsets.family(2),
        L24,
        1,
        k_hots(4, 2),
        lambda l: softmax(k_hots(4, 2) @ l),
        (np.zeros((8, 4)), "8 variables of 6 values"),
    ),
    "top_k": Law(
        top_k.set_family(2),
        L24,
        1,
        k_hots(4, 2),
        plackett_luce,
        (np.zeros((8, 4)), "8 variables of 6 values"),
    ),
    "generalized": Law(
        counts.generalized_family(VALUES),
        L23,
        1,
        VALUES,
        softmax,
        (np.zeros((13, 3)), "13 variables of 3 values"),
    ),
    "poisson": Law(
        counts.truncated_poisson_family(3),
        L23[0, :2],
        0,
        np.arange(4.0),
        truncated(lambda k, x: k * x - np.array([math.lgamma(i + 1) for i in k])),
        (np.zeros(11), "11 variables of 4 values"),
    ),
    "geometric": Law(
        counts.truncated_geometric_family(3),
        L23[0, :2],
        0,
        np.arange(4.0),
        truncated(lambda k, x: -k * np.logaddexp(0, x)),
        (np.zeros(11), "11 variables of 4 values"),
    ),
}


def variables(law, params):
    """The params of one variable after the other."""
    return params.reshape(-1, *params.shape[params.ndim - law.event :])


def joint(law, params):
    """Every joint sample, flat, and its probability: the last variable changes fastest."""
    of_one = [law.probabilities(x) for x in variables(law, params)]
    indices = list(itertools.product(range(len(law.points)), repeat=len(of_one)))
    p = [np.prod([q[i] for q, i in zip(of_one, index, strict=True)]) for index in indices]
    return law.points[np.array(indices)], np.array(p)


@functools.cache
def everything(name):
    """What a family says of its law at the params, in one program."""
    law = LAWS[name]
    family, u = law.family, jnp.cos(jnp.arange(100.0))

    @jax.jit
    def of(params, other):
        x = family.support(params)
        u_x = u[: x[0].size].reshape(x[0].shape)
        many = lambda f: jax.vmap(f, (0, None))(x, params)
        results = dict(support=x, log_prob=many(family.log_prob), u=u_x)
        results["slope"] = jax.grad(family.log_prob, argnums=1)(x[1], params)
        results["sample_slope"] = jax.grad(lambda p: jnp.sum(family.sample(KEY, p)))(params)
        results["draws"] = jax.vmap(family.sample, (0, None))(jax.random.split(KEY, 20_000), params)
        if family.mean:
            results["mean"] = family.mean(params)
        if family.kl:
            results["kl"] = family.kl(params, other)
        if family.variance:
            results["variance"] = family.variance(u_x, params)
        if family.neighbors:
            results["neighbors"] = many(family.neighbors)
        # The first variable alone: no leading axes.
        one = variables(law, params)[0]
        results["one"] = family.support(one), family.log_prob(family.support(one)[0], one)
        return results

    return jax.tree.map(np.asarray, of(law.params, law.params[::-1] / 2))


EVERY = pytest.mark.parametrize("name", LAWS)


@EVERY
def test_a_family_is_its_enumerated_law(name):
    law, of = LAWS[name], everything(name)
    x, p = joint(law, law.params)
    assert of["support"].dtype == law.params.dtype
    assert np.array_equal(of["support"].reshape(len(p), -1), x.reshape(len(p), -1))
    assert of["log_prob"].shape == p.shape  # a scalar each
    close(np.exp(of["log_prob"]), p, rtol=1e-9)
    close(np.sum(p), 1, rtol=1e-12)
    log_p = lambda params: np.log(joint(law, params)[1][1])
    close(of["slope"], central(log_p, law.params), rtol=1e-6, atol=1e-8)
    x = of["support"]
    assert ("mean" in of) == (name != "top_k") == ("kl" in of)
    if "mean" in of:
        close(of["mean"], np.tensordot(p, x, 1), rtol=1e-12)
        _, q = joint(law, law.params[::-1] / 2)
        close(of["kl"], p @ np.log(p / q), rtol=1e-10)
    assert ("variance" in of) == (name in ("bernoulli", "categorical", "subsets"))
    if "variance" in of:
        ux = np.tensordot(x, of["u"], of["u"].ndim)
        close(of["variance"], p @ (ux - p @ ux) ** 2, rtol=1e-12)


@EVERY
def test_a_family_samples_its_law(name):
    """Chi-squared over the joint samples; without a gradient."""
    law, of = LAWS[name], everything(name)
    assert not np.any(of["sample_slope"])
    x, p = joint(law, law.params)
    flat = lambda x: x.reshape(len(x), -1)
    number = np.random.default_rng(0).normal(size=flat(x).shape[-1])
    codes = flat(x) @ number
    order = np.argsort(codes)
    place = np.searchsorted(codes[order], flat(of["draws"]) @ number - 1e-9)
    seen = np.bincount(order[place], minlength=len(p))
    assert np.array_equal(x.reshape(len(p), -1)[order[place]], flat(of["draws"]))
    assert stats.chisquare(seen, p * 20_000).pvalue > SIGNIFICANCE


@EVERY
def test_a_family_serves_one_variable_too(name):
    """event_ndim promises that the axes before those of one variable may be any, none included."""
    law, (support, log_p) = LAWS[name], everything(name)["one"]
    assert law.family.event_ndim == law.points.ndim - 1
    assert np.array_equal(support, law.points)
    close(log_p, np.log(law.probabilities(variables(law, law.params)[0])[0]), rtol=1e-9)


@pytest.mark.parametrize("name", ["bernoulli", "categorical"])
def test_neighbors_are_the_other_values(name):
    """Of every variable: each other value once, with its probability."""
    law, of = LAWS[name], everything(name)
    steps, p = of["neighbors"]  # (S, R, *x.shape), (S, R, *batch)
    y = of["support"][:, None] + steps
    flat = lambda a: a.reshape(*a.shape[:2], -1, *law.points.shape[1:])
    mine, values = flat(of["support"][:, None])[:, 0], flat(y)
    p = p.reshape(*p.shape[:2], -1)
    of_one = [law.probabilities(x) for x in variables(law, law.params)]
    same = lambda a, b: np.all(np.reshape(a == b, (len(law.points), -1)), -1)
    for s, r, i in np.ndindex(p.shape):
        (k,) = np.flatnonzero(same(law.points, values[s, r, i]))
        assert not np.array_equal(values[s, r, i], mine[s, i])
        close(p[s, r, i], of_one[i][k], rtol=1e-12)
    for s, i in np.ndindex(p.shape[0], p.shape[2]):
        assert len(np.unique(values[s, :, i], axis=0)) == len(law.points) - 1


@pytest.mark.parametrize("name", ["bernoulli", "categorical"])
def test_a_relaxation_is_the_law_as_a_function_of_noise(name):
    """hard of noise has the mean of the law; a cold relaxed sample of z, and of z' given x, is x;
    z' with x drawn has the law of z by two-sample Kolmogorov-Smirnov."""
    law = LAWS[name]
    relaxation = law.family.relaxation

    @jax.jit
    def draw(key):
        key, other = jax.random.split(key)
        noise, fresh = (relaxation.noise(k, law.params) for k in (key, other))
        x, z = relaxation.hard(noise, law.params), relaxation.free(noise, law.params)
        given = relaxation.given(fresh, x, law.params)
        return x, z, given, relaxation.relax(z, 1e-9), relaxation.relax(given, 1e-9)

    x, z, given, *cold = map(np.asarray, jax.vmap(draw)(jax.random.split(KEY, 20_000)))
    points, p = joint(law, law.params)
    values = np.random.default_rng(0).normal(size=x[0].shape)
    seen = np.tensordot(x, values, values.ndim)
    exact = np.tensordot(points.reshape(-1, *values.shape), values, values.ndim)
    assert abs(seen.mean() - p @ exact) < 5.5 * seen.std() / np.sqrt(20_000)
    for relaxed in cold:
        close(relaxed, x, atol=1e-6)
    for i in np.ndindex(values.shape):
        ks = stats.ks_2samp(z[(slice(None), *i)], given[(slice(None), *i)])
        assert ks.pvalue > SIGNIFICANCE


@EVERY
def test_too_many_to_enumerate(name):
    params, words = LAWS[name].large
    with pytest.raises(ValueError, match=f"^params: got {words}.*need"):
        LAWS[name].family.support(params)


@EVERY
def test_a_family_pickles(name):
    """Also the noise of its relaxation; the copy samples the same."""
    family, params = LAWS[name].family, LAWS[name].params
    copy = pickle.loads(pickle.dumps(family))
    x = family.sample(KEY, params)
    assert np.array_equal(copy.sample(KEY, params), x)
    assert copy.name == family.name and copy.event_ndim == family.event_ndim
    assert jax.eval_shape(copy.log_prob, x, params).shape == ()
    if copy.relaxation:
        noise = copy.relaxation.noise(KEY, params)
        x, z = copy.relaxation.hard(noise, params), copy.relaxation.free(noise, params)
        assert copy.relaxation.given(noise, x, params).shape == z.shape
        assert copy.relaxation.relax(z, 0.5).shape == z.shape


def test_sizes_of_families_are_static_integers():
    makers = subsets.family, top_k.set_family, counts.truncated_poisson_family
    for maker in (*makers, counts.truncated_geometric_family):
        name = "truncation" if "truncated" in maker.__name__ else "k"
        for bad, error in ((0, ValueError), (-1, ValueError), (2.0, TypeError), ("2", TypeError)):
            with pytest.raises(error, match=f"^{name}: got .*need"):
                maker(bad)
        for bad in (None, True):
            with pytest.raises(TypeError, match=f"^{name}: got .*need"):
                maker(bad)
    for family in (subsets.family(6), top_k.set_family(6)):
        calls = [(family.sample, (KEY, np.zeros(5))), (family.log_prob, (np.ones(5), np.zeros(5)))]
        for f, args in (*calls, (family.support, (np.zeros(5),))):
            with pytest.raises(ValueError, match="^k: got 6.*need"):
                f(*args)
    with pytest.raises(ValueError, match="^k: got 6.*need"):
        subsets.family(6).mean(np.zeros(5))
    with pytest.raises(TypeError, match="^values: got int.*need"):
        counts.generalized_family(np.arange(3))


# ------------------------------------------------------------------------- others' distributions


class Normal:
    """As much of a distribution as is asked for, reparameterized."""

    def __init__(self, loc):
        self.loc = loc

    def sample(self, seed):
        return self.loc + jax.random.normal(seed, self.loc.shape, self.loc.dtype)

    def log_prob(self, x):
        return -((x - self.loc) ** 2) / 2 - np.log(2 * np.pi) / 2

    def mean(self):
        return self.loc


def test_by_hand():
    """Oracle: scipy. The sample carries no gradient, the log-probability sums over batch axes."""
    family = families.from_distribution(Normal)
    loc = np.array([[0.3, -1.0], [2.0, 0.1]])
    x = family.sample(KEY, loc)
    assert family.name == "from_distribution" and x.shape == (2, 2)
    gradient = jax.grad(lambda loc: jnp.sum(family.sample(KEY, loc)))(loc)
    assert np.array_equal(gradient, np.zeros((2, 2)))
    close(family.log_prob(x, loc), stats.norm.logpdf(x, loc).sum(), rtol=1e-12)
    close(jax.grad(family.log_prob, argnums=1)(x, loc), x - loc, rtol=1e-12)
    assert np.array_equal(family.mean(loc), loc) and family.support is None


def test_a_family_of_a_distribution_pickles():
    family = pickle.loads(pickle.dumps(families.from_distribution(Normal)))
    loc = np.array([0.3, -1.0])
    assert np.array_equal(family.sample(KEY, loc), Normal(loc).sample(KEY))


def test_support_is_the_callers():
    support = lambda params: jnp.arange(3.0)
    family = families.from_distribution(Normal, support=support)
    assert np.array_equal(family.support(None), [0, 1, 2])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_distrax():
    """Oracle: scipy's Bernoulli; samples keep the law's integers, params may be a pytree."""
    distrax = pytest.importorskip("distrax", reason="needs the extra distrax")
    jax.config.update("jax_numpy_dtype_promotion", "standard")  # distrax is not made for strict
    jax.config.update("jax_numpy_rank_promotion", "allow")
    try:
        family = families.from_distribution(lambda p: distrax.Bernoulli(logits=p["logits"]))
        params = {"logits": jnp.array([0.3, -2.0, 1.0])}
        x = family.sample(KEY, params)
        assert x.shape == (3,) and jnp.issubdtype(x.dtype, jnp.integer)
        p = 1 / (1 + np.exp(-np.asarray(params["logits"])))
        close(family.log_prob(x, params), stats.bernoulli.logpmf(x, p).sum(), rtol=1e-6)
        score = jax.grad(lambda q: family.log_prob(x, q))(params)["logits"]
        close(score, x - p, rtol=1e-6)
        close(family.mean(params), p, rtol=1e-6)
    finally:
        jax.config.update("jax_numpy_dtype_promotion", "strict")
        jax.config.update("jax_numpy_rank_promotion", "raise")


def test_errors_name_build():
    with pytest.raises(TypeError, match="build: got 3, need a function"):
        families.from_distribution(3)
    with pytest.raises(TypeError, match="build: got a object, need a method sample"):
        families.from_distribution(lambda params: object()).sample(KEY, None)


PAGE = pathlib.Path(__file__).parents[1] / "docs" / "families.md"


@pytest.mark.once
def test_the_page_of_a_distribution_of_your_own():
    """Its functions fit each other, by both values of each bit; its estimators fit `exact`."""
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S):
        exec(block, names)
    family, log_rate = names["relaxed_arrivals"], names["log_rate"]
    one, f = log_rate[:1], lambda x: jnp.sum(jnp.sin(3 * x + 1))
    relaxation, keys = family.relaxation, jax.random.split(KEY, (20_000, 2))

    def draw(keys):
        noise, fresh = relaxation.noise(keys[0], log_rate), relaxation.noise(keys[1], log_rate)
        x = relaxation.hard(noise, log_rate)
        return x, relaxation.given(fresh, x, log_rate)

    @jax.jit
    def computed():
        support = family.support(log_rate)
        log_p = jax.vmap(family.log_prob, (0, None))(support, log_rate)
        others = jax.vmap(family.neighbors, (0, None))(support, log_rate)
        gradients = [
            jax.grad(lambda l: score.exact(KEY, f, l, family=family))(one),
            jax.grad(lambda l: score.indecater(KEY, f, l, family=family))(one),
        ]
        return support, log_p, others, family.mean(log_rate), gradients, jax.vmap(draw)(keys)

    support, log_p, (steps, others), mean, (exact, indecater), (x, z) = map(
        functools.partial(jax.tree.map, np.asarray), computed()
    )
    p = 1 - np.exp(-np.exp(np.asarray(log_rate)))
    close(mean, p, rtol=1e-12)
    close(log_p, np.log(np.where(support == 1, p, 1 - p)).sum(-1), rtol=1e-12)
    close(others[:, 0], np.where(support == 1, 1 - p, p), rtol=1e-12)
    assert np.array_equal(support + steps[:, 0], 1 - support)
    close(indecater, exact, rtol=1e-12)  # of one variable it sums over both values
    # The noise given a bit makes that bit, and mixed over bits is the noise itself, a Gumbel's.
    assert np.array_equal(x, z > 0)
    assert all(stats.kstest(n, "gumbel_r").pvalue > 1e-6 for n in (z - np.asarray(log_rate)).T)
    assert np.all(np.abs(names["audit"].bias) < 5.5 * names["audit"].standard_error)
