"""`from_distribution`, with distrax and with a distribution written by hand; docs/families.md."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import close
from scipy import stats

from relaxjax import families, score

KEY = jax.random.key(0)


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
            jax.grad(lambda l: score.exact(f, l, family=family))(one),
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
