"""Relaxed counts and other values: the mean of given values under a Gumbel-softmax.

Start with `poisson` or `geometric`, a count from 0 to a truncation that `poisson_truncation` and
`geometric_truncation` find; `generalized_gumbel_softmax` takes any finite list of values. A relaxed
value tends to one of the values as the temperature falls; at another temperature even its mean is
not that of the value.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _noise, _numerics, _rules, categorical
from relaxjax.families import Family, joint_support, total

# --------------------------------------------------------------------------------- given values


def generalized_gumbel_softmax(key, log_probs, values, *, temperature=0.5, shape=None):
    """Sample a relaxed value: the mean of n given values under a Gumbel-softmax.

    Distribution: z = sum_k w_k values_k, w = softmax((log_probs + G) / temperature), G_k ~ Gumbel,
      which is `categorical.gumbel_softmax`; z tends to values_k with probability
      softmax(log_probs)_k as the temperature falls.
    Gradient: exact; h_k = g w_k (values_k - z) / temperature for log_probs_k, g w_k for values_k
      and -sum_k h_k log w_k for temperature, where g is the gradient in z.
    Bias: none for E[f(z)] under this distribution; present for E[f] of the value, even for
      linear f.
    Cost: one call of f; O(n) time and memory per variable.

    Args:
      key: PRNG key.
      log_probs: (..., n) floats, unnormalized log-probabilities; leading axes are independent
        variables, and -inf masks a value, whose gradient is 0. A row that is masked throughout, or
        has a NaN or +inf, gives NaN.
      values: (..., n) floats, broadcast with log_probs.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      shape: shape of z, to which the batch shape of log_probs and values broadcasts; None takes
        that batch shape.

    Returns:
      z, of that shape, in the dtype of log_probs; arithmetic is in float32 or wider.

    Raises:
      TypeError: log_probs or values are not floats, temperature is no number, or shape no tuple of
        integers.
      ValueError: log_probs or values have no axis of values or do not broadcast, a Python or NumPy
        temperature is not positive, or temperature or shape does not fit the batch shape.

    Source: Joo et al. 2020, arXiv:2003.01847; their tau is temperature.
    """
    _arguments.floats("log_probs", log_probs, 1)
    _arguments.floats("values", values, 1)
    values, wide, dtype = _arguments.broadcast_together(values, log_probs, 1, "values", "log_probs")
    wide, _ = _arguments.parameters("log_probs", wide, shape, event_ndim=1)
    values = jnp.broadcast_to(values, wide.shape)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    x = wide + _noise.gumbel(key, wide.shape, wide.dtype)
    return _relaxed_value(x, values, temperature).astype(dtype)


@jax.custom_vjp
def _relaxed_value(x, values, temperature):
    w = _rules.tempered_softmax(x, temperature)
    return _numerics.row_sum(w * values)[..., 0]


def _relaxed_value_fwd(x, values, temperature):
    # Not the primal, which would compute w twice; w's own rule makes second derivatives right.
    w = _rules.tempered_softmax(x, temperature)
    z = _numerics.row_sum(w * values)
    return z[..., 0], (w, z, values, temperature)


def _relaxed_value_bwd(residuals, g):
    w, z, values, temperature = residuals
    dvalues = g[..., None] * w
    dx = dvalues * (values - z) / temperature
    return dx, dvalues, _numerics.sum_like(-dx * _numerics.log_or_zero(w), temperature)


_relaxed_value.defvjp(_relaxed_value_fwd, _relaxed_value_bwd)


def log_prob_of_value(x, log_probs, values):
    """Compute the log-probability of a value that is exactly one of n given ones.

    Value: the log of the sum of softmax(log_probs)_k over the k with values_k = x, once values are
      rounded to the dtype of log_probs; NaN where x is none of the values: a relaxed value has no
      probability.

    Args:
      x: floats, the value, broadcast with the batch shape of log_probs.
      log_probs: (..., n) floats, unnormalized log-probabilities; -inf masks a value.
      values: (..., n) numbers, which broadcast to the joint shape of x[..., None] and log_probs.

    Returns:
      The log-probability in nats, of the broadcast batch shape, in the dtype of log_probs;
      differentiable in log_probs.

    Raises:
      TypeError: x or log_probs are not floats.
      ValueError: log_probs have no axis of values, or the three do not broadcast.
    """
    x, wide, dtype = _with_axis(x, log_probs)
    values, wide, _ = _arguments.broadcast_together(values, wide, 1, "values", "log_probs")
    same = jnp.broadcast_to(x, values.shape) == values.astype(dtype).astype(x.dtype)
    return _log_prob_where(same, wide).astype(dtype)


def _with_axis(x, log_probs):
    """x on an axis of all values, log_probs wide, both of one shape, and the dtype to return."""
    x = _arguments.floats("x", x)
    n = _arguments.floats("log_probs", log_probs, 1).shape[-1]
    x = jnp.broadcast_to(x[..., None], (*x.shape, n))
    return _arguments.broadcast_together(x, log_probs, 1, "x", "log_probs")


def _log_prob_where(same, wide):
    """The log-probability of the values that are the same; NaN where none is, or in a bad row."""
    log_p = jnp.where(same, jax.nn.log_softmax(wide), -jnp.inf)
    # A value may be given twice. Not the logsumexp of nothing, whose gradient is NaN.
    some = jnp.any(log_p > -jnp.inf, axis=-1)
    value = jax.nn.logsumexp(jnp.where(some[..., None], log_p, 0), axis=-1)
    value = jnp.where(some, value, -jnp.inf)
    # A row of masks, or with a NaN or +inf, has no probabilities. A product, so that the gradient
    # is NaN too.
    known = jnp.any(same, axis=-1) & jnp.isfinite(jnp.max(wide, axis=-1))
    return value * jnp.where(known, 1, jnp.nan).astype(value.dtype)


# --------------------------------------------------------------------------------------- counts


def poisson(key, log_rate, *, truncation, temperature=0.5, shape=None):
    """Sample a relaxed Poisson count: the mean of 0, ..., truncation under a Gumbel-softmax.

    Distribution: z = sum_k k w_k over k = 0, ..., truncation,
      w = softmax((log_probs + G) / temperature), log_probs_k = k log_rate - log k!, G_k ~ Gumbel.
      As the temperature falls z tends to the Poisson distribution given that the count is at most
      truncation.
    Gradient: exact; g V / temperature for log_rate, V = sum_k w_k (k - z)^2, and
      -g sum_k w_k (k - z) log w_k / temperature for temperature, where g is the gradient in z.
    Bias: none for E[f(z)] under this distribution; present for E[f] of the count, even for
      linear f.
    Cost: one call of f; O(truncation) time and memory per variable.

    Args:
      key: PRNG key.
      log_rate: floats of any shape, the logarithm of the rate; -inf is the count 0 and +inf the
        truncation, both with gradient 0.
      truncation: static integer >= 1, the largest count kept; see `poisson_truncation`.
      temperature: positive scalar, or an array of the shape of z; may be traced.
      shape: shape of z, to which that of log_rate broadcasts; None takes that of log_rate.

    Returns:
      z, of that shape, in the dtype of log_rate; arithmetic is in float32 or wider.

    Raises:
      TypeError: log_rate is not floats, truncation is no static integer, temperature is no number,
        or shape no tuple of integers.
      ValueError: truncation is below 1, a Python or NumPy temperature is not positive, or
        temperature or shape does not fit the shape of log_rate.

    Source: Joo et al. 2020, arXiv:2003.01847; their lambda is exp(log_rate).
    """
    return _count(_POISSON, key, "log_rate", log_rate, truncation, temperature, shape)


def _poisson_log_probs(like, log_rate):
    """k log_rate - log k! less about its maximum, which keeps _moments exact."""
    log_rate = _numerics.finite_multiples(log_rate)
    log_factorials = _log_factorials(like.shape[-1])
    last, log_last = like.shape[-1] - 1, math.log(like.shape[-1] - 1)
    inside = jnp.exp(jnp.minimum(log_rate, log_last))  # the rate itself, but for O(log rate)
    top = jnp.where(log_rate < log_last, inside, last * log_rate - float(log_factorials[-1]))
    log_factorials = jnp.broadcast_to(jnp.asarray(log_factorials, like.dtype), like.shape)
    return _counts(like) * log_rate[..., None] - (log_factorials + top[..., None])


def geometric(key, logits, *, truncation, temperature=0.5, shape=None):
    """Sample a relaxed geometric count, of failures before the first success, as a mean of counts.

    Distribution: z = sum_k k w_k over k = 0, ..., truncation,
      w = softmax((log_probs + G) / temperature), log_probs_k = -k sp(logits), G_k ~ Gumbel, sp the
      softplus. As the temperature falls z tends to the geometric distribution with success
      probability s(logits), s the sigmoid, given that the count is at most truncation.
    Gradient: exact; -g s(logits) V / temperature for logits, V = sum_k w_k (k - z)^2, and
      -g sum_k w_k (k - z) log w_k / temperature for temperature, where g is the gradient in z.
    Bias: none for E[f(z)] under this distribution; present for E[f] of the count, even for
      linear f.
    Cost: one call of f; O(truncation) time and memory per variable.

    Args:
      key: PRNG key.
      logits: floats of any shape, the log-odds of a success; +inf is the count 0, with gradient 0.
      truncation: static integer >= 1, the largest count kept; see `geometric_truncation`.
      temperature: positive scalar, or an array of the shape of z; may be traced.
      shape: shape of z, to which that of logits broadcasts; None takes that of logits.

    Returns:
      z, of that shape, in the dtype of logits; arithmetic is in float32 or wider.

    Raises:
      TypeError: logits are not floats, truncation is no static integer, temperature is no number,
        or shape no tuple of integers.
      ValueError: truncation is below 1, a Python or NumPy temperature is not positive, or
        temperature or shape does not fit the shape of logits.

    Source: Joo et al. 2020, arXiv:2003.01847.
    """
    return _count(_GEOMETRIC, key, "logits", logits, truncation, temperature, shape)


def _geometric_log_probs(like, logits):
    return -_counts(like) * jax.nn.softplus(_numerics.finite_multiples(logits))[..., None]


def _count(count, key, name, x, truncation, temperature, shape):
    wide, dtype = _arguments.parameters(name, x, shape)
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    n = _arguments.count("truncation", truncation, 1) + 1
    noise = _noise.gumbel(key, (*wide.shape, n), wide.dtype)
    return jnp.asarray(_relaxed_count(count, noise, wide, temperature), dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _relaxed_count(count, noise, x, temperature):
    return _moments(count.log_probs(noise, x) + noise, temperature)[0]


def _relaxed_count_fwd(count, noise, x, temperature):
    # Not the primal, as above; a few numbers per draw are kept, and no w.
    z, spread, slope = _moments(count.log_probs(noise, x) + noise, temperature)
    return z, (spread, slope, x, temperature)


def _relaxed_count_bwd(count, residuals, g):
    spread, slope, x, temperature = residuals
    dtemperature = _numerics.sum_like(-g * slope / temperature, temperature)
    return None, g * count.step(x) * spread / temperature, dtemperature


_relaxed_count.defvjp(_relaxed_count_fwd, _relaxed_count_bwd)


def _moments(x, temperature):
    """z = sum_k k w_k, sum_k w_k (k - z)^2 and sum_k w_k (k - z) log w_k."""
    temperature = temperature[..., None] if temperature.ndim else temperature
    w = _numerics.computed_once(_rules.tempered_softmax(x, temperature))
    k = _counts(x)
    z = _numerics.row_sum(w * k)
    deviation = w * (k - z)
    spread = _numerics.row_sum(deviation * (k - z))
    # x / temperature is log w up to a constant of the row, and deviation sums to 0. It is a plain
    # sum, beside which XLA repeats less than beside columns.
    slope = jnp.sum(deviation * (x / temperature), axis=-1)
    return z[..., 0], spread[..., 0], slope


def _counts(x):
    return jax.lax.broadcasted_iota(x.dtype, x.shape, x.ndim - 1)


def _log_factorials(n):
    return np.array([math.lgamma(k + 1) for k in range(n)])


class _Count(NamedTuple):
    """A distribution of counts in one parameter x.

    Fields:
      log_probs: (like, x) -> the log-probabilities of the counts 0, 1, ..., shaped as like; their
        derivative in x is linear in the count.
      step: x -> that derivative's rise from each count to the next.
    """

    log_probs: Callable[..., Any]
    step: Callable[..., Any]


_POISSON = _Count(_poisson_log_probs, jnp.ones_like)
_GEOMETRIC = _Count(_geometric_log_probs, lambda x: -jax.nn.sigmoid(x))

# ------------------------------------------------------------------------------------- families


def generalized_family(values):
    """Make the family of one of n given values, for params log_probs (..., n).

    Args:
      values: (n,) floats that are not traced, of which the samples are made.

    Returns:
      A `Family` of exact values, the distribution to which `generalized_gumbel_softmax` tends, with
      mean, support, kl and event_ndim. Samples have the batch shape and the dtype of log_probs.

    Raises:
      TypeError: values are not floats, or are traced.
      ValueError: values have not one axis; and from the family, log_probs have another number of
        values, or a dtype in which two values are equal.
    """
    _arguments.floats("values", values, event_ndim=1)
    values = np.asarray(values)  # not of the array above, which is traced inside of a jit
    if values.ndim != 1:
        raise ValueError(f"values: got {_arguments.describe(values)}, need shape (n,)")
    of_params = functools.partial(_given_log_probs, len(values))
    return _family("generalized", values, of_params)


def truncated_poisson_family(truncation):
    """Make the family of a Poisson count given that it is at most truncation, for params log_rate.

    Args:
      truncation: static integer >= 1.

    Returns:
      A `Family` of exact counts, the distribution to which `poisson` tends, with mean, support, kl
      and event_ndim. Samples have the shape and dtype of log_rate.

    Raises:
      TypeError: truncation is no static integer.
      ValueError: truncation is below 1.
    """
    return _truncated("poisson", _POISSON.log_probs, truncation)


def truncated_geometric_family(truncation):
    """Make the family of a geometric count given that it is at most truncation, for params logits.

    Args:
      truncation: static integer >= 1.

    Returns:
      A `Family` of exact counts, the distribution to which `geometric` tends, with mean, support,
      kl and event_ndim. Samples have the shape and dtype of logits.

    Raises:
      TypeError: truncation is no static integer.
      ValueError: truncation is below 1.
    """
    return _truncated("geometric", _GEOMETRIC.log_probs, truncation)


def _truncated(name, log_probs, truncation):
    n = _arguments.count("truncation", truncation, 1) + 1
    of_params = functools.partial(_log_probs_of_counts, log_probs, n)
    return _family(name, np.arange(n, dtype=np.float32), of_params)


def _family(name, values, of_params):
    """The family of one of the values, of_params giving their log-probabilities, wide."""
    given = lambda function: functools.partial(function, values, of_params)
    return Family(
        name=name,
        sample=given(_sample_value),
        log_prob=total(given(_log_prob_of_sample)),
        mean=given(_mean_value),
        support=given(_support_of_values),
        kl=total(given(_kl_of_values)),
        event_ndim=0,
    )


def _given_log_probs(n, log_probs):
    wide = _numerics.widen(_arguments.floats("params", log_probs))
    if wide.shape[-1:] != (n,):
        got = _arguments.describe(wide)
        raise ValueError(f"params: got {got}, need log-probabilities of shape (..., {n})")
    return wide


def _log_probs_of_counts(log_probs, n, params):
    wide = _numerics.widen(_arguments.floats("params", params))
    log_p = log_probs(jnp.zeros((*wide.shape, n), wide.dtype), wide)
    return jnp.where(log_p < -1e29, -jnp.inf, log_p)  # multiples of finite_multiples' infinity


def _sample_value(values, of_params, key, params):
    return _weighted(values, categorical.sample(key, of_params(params)), params)


def _log_prob_of_sample(values, of_params, x, params):
    x, wide, dtype = _with_axis(x, of_params(params))
    # x has been rounded to the dtype of its params, whichever that was, and widened since.
    narrow = ("bfloat16", "float16", "float32", x.dtype)
    rounded = [jnp.asarray(values, dtype).astype(x.dtype) for dtype in narrow]
    same = [x == jnp.broadcast_to(r, x.shape) for r in rounded]
    return _log_prob_where(functools.reduce(jnp.logical_or, same), wide).astype(dtype)


def _mean_value(values, of_params, params):
    return _weighted(values, categorical.mean(of_params(params)), params)


def _weighted(values, w, params):
    _distinct(values, params)
    # Not the default precision, which on some accelerators has 8 bits: 257 would be 256.
    z = jnp.tensordot(w, values.astype(w.dtype), 1, precision="highest")
    return z.astype(jnp.asarray(params).dtype)


def _distinct(values, params):
    """ValueError where the dtype of params cannot tell the values apart."""
    dtype = jnp.asarray(params).dtype
    if len(np.unique(np.asarray(values, dtype))) < len(values):
        raise ValueError(
            f"params: got {dtype}, in which some of the {len(values)} values are equal, need a "
            "wider dtype, or distinct values"
        )


def _support_of_values(values, of_params, params):
    _distinct(values, params)
    batch = jax.eval_shape(of_params, params).shape[:-1]
    return joint_support(values, batch, jnp.asarray(params).dtype)


def _kl_of_values(values, of_params, params_q, params_p):
    return categorical.kl(of_params(params_q), of_params(params_p))


# ---------------------------------------------------------------------------------- truncations


def poisson_truncation(log_rate, tail=1e-6):
    """Find the smallest truncation that a Poisson count exceeds with probability at most tail.

    Value: the smallest N >= 1 with P(count > N) <= tail, for the largest of the rates.

    Args:
      log_rate: logarithms of rates, at most 18, which are not traced, since a truncation sets a
        shape.
      tail: a number in (0, 1), which is not traced.

    Returns:
      N, an int.

    Raises:
      TypeError: log_rate or tail is traced or no number.
      ValueError: there is no log_rate, one is not finite or above 18, or tail is not in (0, 1).
    """
    need = "concrete logarithms of rates, at most 18"
    log_rate = np.max(_concrete("log_rate", log_rate, need, lambda x: x <= 18))
    rate = math.exp(log_rate)
    # All above top is less than exp(-40) tail, by Bernstein's inequality.
    t = 40 - math.log(_tail(tail))
    top = math.ceil(rate + t / 3 + math.sqrt(t * t / 9 + 2 * t * rate))
    pmf = np.exp(np.arange(top + 1) * log_rate - rate - _log_factorials(top + 1))
    beyond = np.cumsum(pmf[:1:-1])[::-1]  # P(count > N) from N = 1 on, its small terms first
    return 1 + int(np.sum(beyond > tail))


def geometric_truncation(logits, tail=1e-6):
    """Find the smallest truncation that a geometric count exceeds with probability at most tail.

    Value: the smallest N >= 1 with P(count > N) <= tail, for the smallest of the logits.

    Args:
      logits: log-odds of a success, above -700, which are not traced, since a truncation sets a
        shape.
      tail: a number in (0, 1), which is not traced.

    Returns:
      N, an int.

    Raises:
      TypeError: logits or tail are traced or no numbers.
      ValueError: there are no logits, one is not finite or not above -700, or tail is not in
        (0, 1).
    """
    need = "concrete numbers above -700"
    lowest = np.min(_concrete("logits", logits, need, lambda x: x > -700))
    # P(count > N) = exp(-(N + 1) sp(logits)).
    return max(1, math.ceil(-math.log(_tail(tail)) / np.logaddexp(0, lowest)) - 1)


def _tail(tail):
    need = "a concrete number in (0, 1)"
    value = _concrete("tail", tail, need, lambda x: (x > 0) & (x < 1))
    if value.ndim:
        raise ValueError(f"tail: got {tail}, need {need}")
    return float(value)


def _concrete(name, x, need, holds):
    value = _arguments.as_float64(name, x, need)
    if not value.size or not np.all(np.isfinite(value) & holds(value)):
        raise ValueError(f"{name}: got {x}, need {need}")
    return value
