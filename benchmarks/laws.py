"""Each pathwise row of the catalog beside the same draw as JAX users write it without us.

The counterpart differentiates the plain formula by autodiff, with our noise where that is what a
user would draw, so that a race measures rules and not generators. A hard draw carries its gradient
as users write it: value + surrogate - stop_gradient(surrogate).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from relaxjax import _numerics, bernoulli, categorical, counts, gates, simplex, subsets, top_k

K = 5  # of top-k and subsets
TRUNCATION = 15  # of counts: 16 values


class Law(NamedTuple):
    """A sampler and its counterpart, both (key, params, temperature) -> z.

    Fields:
      ours, plain: plain is None where autodiff has no such draw (an exact sampler's gradient).
      noise: the shape of params -> (key) -> the noise that a draw spends.
      event: axes of one variable: 0 for entries, 1 for rows.
      peers: name -> the same law elsewhere, or a function that raises ImportError.
    """

    ours: Callable[..., Any]
    plain: Callable[..., Any] | None
    noise: Callable[..., Any]
    event: int = 0
    peers: dict[str, Callable[..., Any]] = {}


def _noise(generator, last=lambda n: n):
    """Noise shaped as the parameters, but for the last axis."""

    def of(shape):
        return lambda key: generator(key, (*shape[:-1], last(shape[-1])), jnp.float32)

    return of


_uniform = _noise(lambda key, shape, dtype: jax.random.uniform(key, shape, dtype))
_one_a_row = _noise(lambda key, shape, dtype: jax.random.uniform(key, shape, dtype), lambda n: 1)
_logistic, _gumbel, _normal = (
    _noise(generator) for generator in (_numerics.logistic, _numerics.gumbel, _numerics.normal)
)


def _carry(hard, soft):
    return hard + (soft - lax.stop_gradient(soft))


# ---------------------------------------------------------------------------------- counterparts


def _concrete(key, l, t):
    return jax.nn.sigmoid(_logit_concrete(key, l, t))


def _logit_concrete(key, l, t):
    return (l + _numerics.logistic(key, l.shape, l.dtype)) / t


def _bit(key, p):
    return jax.random.uniform(key, p.shape, p.dtype) < lax.stop_gradient(p)


def _straight_through(key, l, t):
    p = jax.nn.sigmoid(l)
    return _carry(_bit(key, p).astype(p.dtype), p)


def _straight_through_concrete(key, l, t):
    y = _logit_concrete(key, l, t)
    return _carry((y > 0).astype(l.dtype), jax.nn.sigmoid(y))


def _zgr(key, l, t):
    p = jax.nn.sigmoid(l)
    b = _bit(key, p).astype(p.dtype)
    # The gradient |b - p| / 2 in logits.
    return _carry(b, lax.stop_gradient(jnp.abs(b - p) / 2) * l)


def _stochastic_times_smooth(key, l, t):
    q = jnp.sqrt(jax.nn.sigmoid(l))
    b = _bit(key, q).astype(q.dtype)
    log_odds = jnp.log(q) - jnp.log1p(-q)
    return q * _carry(b, lax.stop_gradient(jnp.abs(b - q) / 2) * log_odds)


def _correlated(key, l, t):
    noise = _numerics.normal(key, l.shape, l.dtype) @ _tril(l).T
    ndtr = jax.scipy.special.log_ndtr
    return (l + ndtr(noise) - ndtr(-noise)) / t


def _tril(l):
    """Equicorrelated at 1/2."""
    n = l.shape[-1]
    return jnp.linalg.cholesky((jnp.eye(n) + jnp.ones((n, n))) / 2).astype(l.dtype)


def _correlated_straight_through(key, l, t):
    y = _correlated(key, l, t)
    return _carry((y > 0).astype(l.dtype), jax.nn.sigmoid(y))


def _gumbel_softmax(key, l, t):
    return jax.nn.softmax(_perturbed(key, l, t))


def _perturbed(key, l, t):
    return (l + _numerics.gumbel(key, l.shape, l.dtype)) / t


def _one_hot_of(y):
    return jax.nn.one_hot(jnp.argmax(y, axis=-1), y.shape[-1], dtype=y.dtype)


def _class(key, l):
    return _one_hot_of(lax.stop_gradient(_perturbed(key, l, 1)))


def _straight_through_class(key, l, t):
    return _carry(_class(key, l), jax.nn.softmax(l / t))


def _straight_through_gumbel_softmax(key, l, t):
    y = _perturbed(key, l, t)
    return _carry(_one_hot_of(lax.stop_gradient(y)), jax.nn.softmax(y))


def _reinmax(key, l, t):
    d, p = _class(key, l), jax.nn.softmax(l)
    q = lax.stop_gradient((d + jax.nn.softmax(l / t)) / 2)
    # As published: a softmax whose value at these logits is q.
    shifted = jax.nn.softmax(jnp.log(q) - lax.stop_gradient(l) + l)
    return _carry(d, 2 * shifted - p / 2)


def _zgr_class(key, l, t):
    d, p = _class(key, l), jax.nn.softmax(l)
    log_p = jax.nn.log_softmax(l)
    # (J(p) + (d - p) (d - p)^T) / 2: a mean and a score that is weighted by d - p.
    log_q = jnp.sum(d * log_p, axis=-1, keepdims=True)
    return _carry(d, (p + lax.stop_gradient(d - p) * log_q) / 2)


def _gapped(key, l, t):
    d, p = _class(key, l), jax.nn.log_softmax(l)
    top, chosen = (jnp.sum(x, -1, keepdims=True) for x in (jnp.max(p, -1, keepdims=True), d * p))
    up = lax.stop_gradient(top - chosen) * d
    down = lax.stop_gradient(jax.nn.relu(p + 1 - top)) * (1 - d)
    return _carry(d, jax.nn.softmax((l + up - down) / t))


def _rao(draw, soft):
    """The mean of soft(key, draw, logits, temperature) over ten noises given the draw."""

    def sampler(key, l, t):
        d = draw(key, l)
        keys = jax.random.split(jax.random.fold_in(key, 1), 10)
        return _carry(d, jnp.mean(jax.vmap(lambda key: soft(key, d, l, t))(keys), axis=0))

    return sampler


def _soft_bit(key, b, l, t):
    v = jax.random.uniform(key, l.shape, l.dtype, minval=1e-7, maxval=1 - 1e-7)
    p = jax.nn.sigmoid(l)
    u = lax.stop_gradient(jnp.where(b == 1, 1 - p * (1 - v), (1 - p) * v))
    u = jnp.clip(u, 1e-7, 1 - 1e-7)
    return jax.nn.sigmoid((l + lax.stop_gradient(jnp.log(u) - jnp.log1p(-u))) / t)


def _soft_class(key, d, l, t):
    e = jax.random.exponential(key, l.shape, l.dtype)
    first = jnp.sum(e * d, -1, keepdims=True)
    total = jax.nn.logsumexp(l, axis=-1, keepdims=True)
    y = jnp.where(
        d == 1, total - jnp.log(first), -jnp.log(e * jnp.exp(-l) + first / jnp.exp(total))
    )
    return jax.nn.softmax((l + lax.stop_gradient(y - l)) / t)


def _gate(key, mean, t):
    return jnp.clip(mean + t * _numerics.normal(key, mean.shape, mean.dtype), 0, 1)


def _hard_concrete(key, l, t):
    return jnp.clip(-0.1 + 1.2 * _concrete(key, l, t), 0, 1)


def _invertible_gaussian(key, mean, t):
    x = (mean + _numerics.normal(key, mean.shape, mean.dtype)) / t
    return jax.nn.softmax(jnp.concatenate([x, jnp.zeros((*x.shape[:-1], 1), x.dtype)], axis=-1))


def _logistic_normal(key, mean, t):
    return jax.nn.softmax((mean + _numerics.normal(key, mean.shape, mean.dtype)) / t)


def _relaxed_top_k(key, l, t):
    def draw(a, _):
        q = jax.nn.softmax(a / t)
        return a + jnp.log(jnp.clip(1 - q, 1e-20)), q

    _, q = lax.scan(draw, _perturbed(key, l, 1), None, length=K)
    return jnp.sum(q, axis=0)


def _straight_through_top_k(key, l, t):
    y = lax.stop_gradient(_perturbed(key, l, 1))
    hard = jnp.sum(jax.nn.one_hot(lax.top_k(y, K)[1], l.shape[-1], dtype=l.dtype), axis=-2)
    return _carry(hard, _relaxed_top_k(key, l, t))


def _marginals(l):
    """The inclusion marginals by autodiff of a table of log e_j."""

    def total(l):
        def add(a, x):
            return jnp.logaddexp(a, jnp.append(-1e30, a[:-1]) + x), None

        a = jnp.full(K + 1, -1e30, l.dtype).at[0].set(0)
        return lax.scan(add, a, l)[0][K]

    return jnp.vectorize(jax.grad(total), signature="(n)->(n)")(l)


def _simple(key, l, t):
    return _carry(subsets.sample(key, lax.stop_gradient(l), K), _marginals(l))


def _values(key, log_p, values, t):
    noise = _numerics.gumbel(key, log_p.shape, log_p.dtype)
    return jnp.sum(jax.nn.softmax((log_p + noise) / t) * values, axis=-1)


def _poisson(key, log_rate, t):
    k = jnp.arange(TRUNCATION + 1, dtype=log_rate.dtype)
    return _values(key, k * log_rate[..., None] - lax.lgamma(k + 1), k, t)


def _geometric(key, l, t):
    k = jnp.arange(TRUNCATION + 1, dtype=l.dtype)
    return _values(key, -k * jax.nn.softplus(l)[..., None], k, t)


# ---------------------------------------------------------------------------------------- peers


def _tfp(name):
    def sampler(key, l, t):
        import tensorflow_probability.substrates.jax.distributions as tfd

        return getattr(tfd, name)(t, logits=l).sample(seed=key)

    return sampler


def _numpyro(key, l, t):
    from numpyro.distributions import RelaxedBernoulliLogits

    return RelaxedBernoulliLogits(t, logits=l).rsample(key)


def _synjax(key, l, t):
    import synjax

    return synjax.KSubset(k=K, log_potentials=l).sample(key)


# ----------------------------------------------------------------------------------------- table


def _of(sampler, **fixed):
    return lambda key, l, t: sampler(key, l, temperature=t, **fixed)


def _without_temperature(sampler, *args):
    return lambda key, l, t: sampler(key, l, *args)


def _classes(last):
    return _noise(lambda key, shape, dtype: _numerics.gumbel(key, (*shape, last), dtype))


LAWS = {
    "bernoulli/concrete": Law(
        _of(bernoulli.concrete),
        _concrete,
        _logistic,
        peers={"TFP": _tfp("RelaxedBernoulli"), "numpyro": _numpyro},
    ),
    "bernoulli/logit_concrete": Law(_of(bernoulli.logit_concrete), _logit_concrete, _logistic),
    "bernoulli/straight_through": Law(
        _without_temperature(bernoulli.straight_through), _straight_through, _uniform
    ),
    "bernoulli/straight_through_concrete": Law(
        _of(bernoulli.straight_through_concrete), _straight_through_concrete, _logistic
    ),
    "bernoulli/zgr": Law(_without_temperature(bernoulli.zgr), _zgr, _uniform),
    "bernoulli/gumbel_rao": Law(
        _of(bernoulli.gumbel_rao),
        _rao(lambda key, l: _bit(key, jax.nn.sigmoid(l)).astype(l.dtype), _soft_bit),
        _uniform,
    ),
    "bernoulli/stochastic_times_smooth": Law(
        _without_temperature(bernoulli.stochastic_times_smooth), _stochastic_times_smooth, _uniform
    ),
    "bernoulli/correlated_concrete": Law(
        lambda key, l, t: bernoulli.correlated_concrete(key, l, _tril(l), temperature=t),
        lambda key, l, t: jax.nn.sigmoid(_correlated(key, l, t)),
        _normal,
        event=1,
    ),
    "bernoulli/correlated_straight_through": Law(
        lambda key, l, t: bernoulli.correlated_straight_through(key, l, _tril(l), temperature=t),
        _correlated_straight_through,
        _normal,
        event=1,
    ),
    "categorical/gumbel_softmax": Law(
        _of(categorical.gumbel_softmax),
        _gumbel_softmax,
        _gumbel,
        event=1,
        peers={"TFP": _tfp("RelaxedOneHotCategorical")},
    ),
    "categorical/log_gumbel_softmax": Law(
        _of(categorical.log_gumbel_softmax),
        lambda key, l, t: jax.nn.log_softmax(_perturbed(key, l, t)),
        _gumbel,
        event=1,
        peers={"TFP": _tfp("ExpRelaxedOneHotCategorical")},
    ),
    "categorical/straight_through": Law(
        _of(categorical.straight_through), _straight_through_class, _one_a_row, event=1
    ),
    "categorical/straight_through_gumbel_softmax": Law(
        _of(categorical.straight_through_gumbel_softmax),
        _straight_through_gumbel_softmax,
        _gumbel,
        event=1,
    ),
    "categorical/decoupled_straight_through": Law(
        lambda key, l, t: categorical.decoupled_straight_through(
            key, l, forward_temperature=1.0, backward_temperature=t
        ),
        _straight_through_class,
        _one_a_row,
        event=1,
    ),
    "categorical/gapped_straight_through": Law(
        _of(categorical.gapped_straight_through), _gapped, _one_a_row, event=1
    ),
    "categorical/reinmax": Law(_of(categorical.reinmax), _reinmax, _one_a_row, event=1),
    "categorical/zgr": Law(_without_temperature(categorical.zgr), _zgr_class, _one_a_row, event=1),
    "categorical/gumbel_rao": Law(
        _of(categorical.gumbel_rao), _rao(_class, _soft_class), _one_a_row, event=1
    ),
    "gates/gaussian": Law(lambda key, mean, t: gates.gaussian(key, mean, scale=t), _gate, _normal),
    "gates/hard_concrete": Law(_of(gates.hard_concrete), _hard_concrete, _logistic),
    "simplex/invertible_gaussian": Law(
        _of(simplex.invertible_gaussian), _invertible_gaussian, _normal, event=1
    ),
    "simplex/logistic_normal": Law(
        _of(simplex.logistic_normal), _logistic_normal, _normal, event=1
    ),
    "top_k/relaxed": Law(_of(top_k.relaxed, k=K), _relaxed_top_k, _gumbel, event=1),
    "top_k/straight_through": Law(
        _of(top_k.straight_through, k=K), _straight_through_top_k, _gumbel, event=1
    ),
    "subsets/simple": Law(_without_temperature(subsets.simple, K), _simple, _uniform, event=1),
    "subsets/zgr": Law(_without_temperature(subsets.zgr, K), None, _uniform, event=1),
    "counts/generalized_gumbel_softmax": Law(
        lambda key, l, t: counts.generalized_gumbel_softmax(
            key, l, jnp.arange(l.shape[-1], dtype=l.dtype), temperature=t
        ),
        lambda key, l, t: _values(key, l, jnp.arange(l.shape[-1], dtype=l.dtype), t),
        _gumbel,
        event=1,
    ),
    "counts/poisson": Law(
        _of(counts.poisson, truncation=TRUNCATION), _poisson, _classes(TRUNCATION + 1)
    ),
    "counts/geometric": Law(
        _of(counts.geometric, truncation=TRUNCATION), _geometric, _classes(TRUNCATION + 1)
    ),
}
