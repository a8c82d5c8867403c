"""Relaxed counts and other values: the mean of given values under a Gumbel-softmax.

Start with `poisson` or `geometric`, a count from 0 to a truncation that `poisson_truncation` and
`geometric_truncation` find; `generalized_gumbel_softmax` takes any finite list of values.

Throughout: `key` is a PRNG key; the leading axes of parameters are independent variables.
`temperature` is a positive scalar or has the batch shape, may be traced, and raises ValueError when
a Python or NumPy number is out of range (a jax.Array gives NaN). `shape` is the shape of the
result, without an axis of values; None takes the batch shape of the parameters. The result has the
dtype of log_probs, log_rate or logits; arithmetic and noise are in float32 or wider. Integers for
these raise TypeError, a shape that they do not broadcast to ValueError. Every sampler serves one
call of f and costs O(n) time and memory a variable of n values. Its law is that of z; z tends to
one of the values as the temperature falls, but even E[z] is not the mean of the value at another.
In the formulas w is the drawn Gumbel-softmax, g the incoming cotangent, s the sigmoid, sp the
softplus.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _numerics, categorical

# --------------------------------------------------------------------------------- given values


def generalized_gumbel_softmax(key, log_probs, values, *, temperature=0.5, shape=None):
    """A relaxed draw of one of n values.

    Law: z = sum_k w_k values_k, w = categorical.gumbel_softmax(log_probs); it tends to values_k
      with probability softmax(log_probs)_k.
    Gradient: exact; to log_probs_k h_k = g w_k (values_k - z) / temperature, to values_k g w_k, to
      temperature -sum_k h_k log w_k.
    Bias: none for E[f(z)] under this law; biased for E[f] of the value, even for linear f.
    Args:
      log_probs: (..., n) unnormalized; -inf masks a value, with gradient 0; a row that is masked
        throughout, or has a NaN or +inf, gives NaN.
      values: floats (..., n), broadcast with log_probs.
    Source: Joo et al. 2020, arXiv:2003.01847; their tau is temperature.
    """
    _arguments.vector("log_probs", log_probs)
    _arguments.vector("values", values)
    values, wide, dtype = _arguments.together(values, log_probs, 1, "values", "log_probs")
    wide, _ = _arguments.parameters("log_probs", wide, shape, event_ndim=1)
    values = jnp.broadcast_to(values, wide.shape)
    temperature = _arguments.real("temperature", temperature, wide, event_ndim=1)
    noise = _numerics.gumbel(key, wide.shape, wide.dtype)
    return _generalized_gumbel_softmax(noise, wide, values, temperature).astype(dtype)


@jax.custom_vjp
def _generalized_gumbel_softmax(noise, log_probs, values, temperature):
    w = categorical._gumbel_softmax(noise, log_probs, temperature)
    return _numerics.row_sum(w * values)[..., 0]


def _generalized_gumbel_softmax_fwd(noise, log_probs, values, temperature):
    # Not the primal, which would compute w twice; w's own rule makes second derivatives right.
    w = categorical._gumbel_softmax(noise, log_probs, temperature)
    z = _numerics.row_sum(w * values)
    return z[..., 0], (w, z, values, temperature)


def _generalized_gumbel_softmax_bwd(residuals, g):
    w, z, values, temperature = residuals
    dvalues = g[..., None] * w
    dlog_probs = dvalues * (values - z) / temperature
    dtemperature = _numerics.sum_like(-dlog_probs * _numerics.log_of(w), temperature)
    return None, dlog_probs, dvalues, dtemperature


_generalized_gumbel_softmax.defvjp(_generalized_gumbel_softmax_fwd, _generalized_gumbel_softmax_bwd)


def _log_prob_of_value(x, log_probs, values):
    """The log-probability of an x that is exactly one of the values; NaN for another."""
    _arguments.floats("x", x)
    x, wide, dtype = _arguments.together(jnp.asarray(x)[..., None], log_probs, 1, "x", "log_probs")
    same = x == jnp.broadcast_to(values.astype(dtype).astype(x.dtype), x.shape)
    log_p = jnp.where(same, jax.nn.log_softmax(wide), -jnp.inf)
    # A value may be given twice; without a logsumexp of nothing, whose gradient is NaN.
    some = jnp.any(log_p > -jnp.inf, axis=-1)
    value = jax.nn.logsumexp(jnp.where(some[..., None], log_p, 0), axis=-1)
    value = jnp.where(some, value, -jnp.inf)
    return jnp.where(jnp.any(same, axis=-1), value, jnp.nan).astype(dtype)


# --------------------------------------------------------------------------------------- counts


def poisson(key, log_rate, *, truncation, temperature=0.5, shape=None):
    """A relaxed Poisson count.

    Law: `generalized_gumbel_softmax` of the values k = 0 to truncation under log_probs
      k log_rate - log k!: it tends to the Poisson law given that the count is at most truncation.
    Gradient: exact; to log_rate g V / temperature, V = sum_k w_k (k - z)^2, to temperature
      -g sum_k w_k (k - z) log w_k / temperature.
    Bias: none for E[f(z)] under this law; biased for E[f] of the count, even for linear f.
    Args:
      log_rate: any shape; -inf is the count 0, +inf the truncation, with gradient 0.
      truncation: static integer >= 1, the largest count kept; see `poisson_truncation`.
    Source: Joo et al. 2020, arXiv:2003.01847; their lambda is exp(log_rate).
    """
    return _count(_poisson, key, "log_rate", log_rate, truncation, temperature, shape)


def _poisson_log_probs(noise, log_rate):
    """k log_rate - log k! less about its maximum, which keeps _moments exact."""
    log_rate = _numerics.bounded(log_rate)
    log_factorials = _log_factorials(noise.shape[-1])
    last, log_last = noise.shape[-1] - 1, math.log(noise.shape[-1] - 1)
    inside = jnp.exp(jnp.minimum(log_rate, log_last))  # the rate itself, but for O(log rate)
    top = jnp.where(log_rate < log_last, inside, last * log_rate - float(log_factorials[-1]))
    log_factorials = jnp.broadcast_to(jnp.asarray(log_factorials, noise.dtype), noise.shape)
    return _counts(noise) * log_rate[..., None] - (log_factorials + top[..., None])


def geometric(key, logits, *, truncation, temperature=0.5, shape=None):
    """A relaxed geometric count: failures before the first success, of probability s(logits).

    Law: `generalized_gumbel_softmax` of the values k = 0 to truncation under log_probs
      -k sp(logits): it tends to the geometric law given that the count is at most truncation.
    Gradient: exact; to logits -g s(logits) V / temperature, V = sum_k w_k (k - z)^2, to temperature
      -g sum_k w_k (k - z) log w_k / temperature.
    Bias: none for E[f(z)] under this law; biased for E[f] of the count, even for linear f.
    Args:
      logits: log-odds of a success, any shape; +inf is the count 0, with gradient 0.
      truncation: static integer >= 1, the largest count kept; see `geometric_truncation`.
    Source: Joo et al. 2020, arXiv:2003.01847.
    """
    return _count(_geometric, key, "logits", logits, truncation, temperature, shape)


def _geometric_log_probs(noise, logits):
    return -_counts(noise) * jax.nn.softplus(_numerics.bounded(logits))[..., None]


def _count(rule, key, name, x, truncation, temperature, shape):
    wide, dtype = _arguments.parameters(name, x, shape)
    temperature = _arguments.real("temperature", temperature, wide)
    n = _arguments.count("truncation", truncation, 1) + 1
    noise = _numerics.gumbel(key, (*wide.shape, n), wide.dtype)
    return rule(noise, wide, temperature).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _relaxed(law, noise, x, temperature):
    return _moments(noise, law.log_probs(noise, x), temperature)[0]


def _relaxed_fwd(law, noise, x, temperature):
    # Not the primal, as above; a few numbers a draw are kept, and no w.
    z, spread, slope = _moments(noise, law.log_probs(noise, x), temperature)
    return z, (spread, slope, x, temperature)


def _relaxed_bwd(law, residuals, g):
    spread, slope, x, temperature = residuals
    dtemperature = _numerics.sum_like(-g * slope / temperature, temperature)
    return None, g * law.step(x) * spread / temperature, dtemperature


_relaxed.defvjp(_relaxed_fwd, _relaxed_bwd)


def _moments(noise, log_probs, temperature):
    """z = sum_k k w_k, sum_k w_k (k - z)^2 and sum_k w_k (k - z) log w_k."""
    temperature = temperature[..., None] if temperature.ndim else temperature
    w = _numerics.once(categorical._gumbel_softmax(noise, log_probs, temperature))
    k = _counts(noise)
    z = _numerics.row_sum(w * k)
    deviation = w * (k - z)
    spread = _numerics.row_sum(deviation * (k - z))
    # log w up to a constant of the row, and deviation sums to 0. A plain sum, beside which XLA
    # repeats less than beside columns.
    log_w = (log_probs + noise) / temperature
    slope = jnp.sum(deviation * log_w, axis=-1)
    return z[..., 0], spread[..., 0], slope


def _counts(noise):
    return jax.lax.broadcasted_iota(noise.dtype, noise.shape, noise.ndim - 1)


def _log_factorials(n):
    return np.array([math.lgamma(k + 1) for k in range(n)])


class _Law(NamedTuple):
    """Of a count, in one parameter x.

    Fields:
      log_probs: (noise, x) -> those of the values, shaped as the noise; linear in the value.
      step: x -> their derivative in x, of each value over the value before it.
    """

    log_probs: Callable[..., Any]
    step: Callable[..., Any]


_poisson = functools.partial(_relaxed, _Law(_poisson_log_probs, jnp.ones_like))
_geometric = functools.partial(_relaxed, _Law(_geometric_log_probs, lambda x: -jax.nn.sigmoid(x)))

# ---------------------------------------------------------------------------------- truncations


def poisson_truncation(rate, tail=1e-6):
    """The smallest N >= 1 with P(count > N) <= tail, for the largest of the rates, as an int.

    Args:
      rate: concrete nonnegative numbers (rates, not their logarithms): a truncation sets a shape,
        so that a traced rate raises TypeError.
      tail: a concrete number in (0, 1).
    """
    need = "concrete nonnegative numbers"
    rate = max(np.max(_concrete("rate", rate, need, lambda x: x >= 0)), np.finfo(float).tiny)
    # All above top is less than exp(-40) tail, by Bernstein's inequality.
    t = 40 - math.log(_tail(tail))
    top = math.ceil(rate + t / 3 + math.sqrt(t * t / 9 + 2 * t * rate))
    pmf = np.exp(np.arange(top + 1) * math.log(rate) - rate - _log_factorials(top + 1))
    beyond = np.cumsum(pmf[:1:-1])[::-1]  # P(count > N) from N = 1 on, its small terms first
    return 1 + int(np.sum(beyond > tail))


def geometric_truncation(logits, tail=1e-6):
    """The smallest N >= 1 with P(count > N) <= tail, for the smallest of the logits, as an int.

    Args:
      logits: concrete log-odds of a success above -700: a truncation sets a shape, so that traced
        ones raise TypeError.
      tail: a concrete number in (0, 1).
    """
    need = "concrete numbers above -700"
    lowest = np.min(_concrete("logits", logits, need, lambda x: x > -700))
    # P(count > N) = exp(-(N + 1) sp(logits)).
    return max(1, math.ceil(-math.log(_tail(tail)) / np.logaddexp(0, lowest)) - 1)


def _tail(tail):
    return float(
        _concrete("tail", tail, "a concrete number in (0, 1)", lambda x: (x > 0) & (x < 1))
    )


def _concrete(name, x, need, holds):
    try:
        value = np.asarray(x, np.float64)
    except (TypeError, ValueError):  # a tracer's error is a TypeError
        raise TypeError(f"{name}: got {x!r}, need {need}") from None
    if not value.size or not np.all(np.isfinite(value) & holds(value)):
        raise ValueError(f"{name}: got {x}, need {need}")
    return value
