"""Bits (..., D) joined by a Gaussian copula: each alone is a bit of `bernoulli`.

Start with `concrete`, which relaxes the bits; `straight_through` is exactly 0 or 1 forward.
"""

import math

import jax
import jax.numpy as jnp

from relaxjax import _arguments, _noise, _numerics, _rules, _special


def concrete(key, logits, correlation_tril, *, temperature=0.5, shape=None):
    """Sample relaxed bits joined by a Gaussian copula, each distributed as `bernoulli.concrete`.

    Distribution: z = sigmoid(y), y = (logits + lam(v)) / temperature, v = R eps, where R is
      correlation_tril, eps ~ N(0, I), Phi is the normal cdf, and lam(v) = log Phi(v) - log Phi(-v)
      makes a standard logistic variable of each entry of v. Rounding may give exactly 0 or 1.
    Gradient: exact. With g the gradient in z and h = g sigmoid'(y) / temperature: h for logits,
      -sum_i h_i y_i for temperature, and for R the lower triangle of (h lam'(v)) eps^T, where
      lam'(v) = phi(v) / (Phi(v) Phi(-v)), phi the normal density.
    Bias: none for E[f(z)] under this distribution; present for E[f(b)] of the exact bits b.
    Cost: one call of f; O(D^2) time per draw.

    Args:
      key: PRNG key.
      logits: (..., D) floats, log-odds; -inf and +inf make a z that is always 0 or 1, with gradient
        0.
      correlation_tril: (D, D) floats, the Cholesky factor of the correlation matrix, which all
        draws share: lower triangular, with rows of norm 1 within 1e-3, and used as it is.
      temperature: positive scalar, or an array of the batch shape, without D; may be traced.
      shape: batch shape of z, without D, to which that of logits broadcasts; None takes that of
        logits.

    Returns:
      z, of shape (*shape, D), in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits or correlation_tril are not floats, temperature is no number, or shape no
        tuple of integers.
      ValueError: a Python or NumPy temperature is not positive or correlation_tril no such factor
        (a jax.Array gives NaN), logits have no axis of bits, or correlation_tril, temperature or
        shape does not fit the shape of logits.

    Source: Lee et al. 2022, "Self-supervision enhanced feature selection with correlated gates",
      with the logistic noise of Maddison et al. 2017, arXiv:1611.00712.
    """
    x, temperature, dtype = _joint_draw(key, logits, correlation_tril, temperature, shape)
    return _rules.tempered_sigmoid(x, temperature).astype(dtype)


def _joint_draw(key, logits, tril, temperature, shape):
    """Return logits + lam(v), the temperature to combine with it, and the dtype to return."""
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    tril = _arguments.correlation_factor(tril, wide)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    noise = _noise.normal(key, wide.shape, wide.dtype)
    return wide + _logistic(noise, tril), temperature, dtype


def _logistic(noise, tril):
    return _numerics.computed_once(_special.normal_logit(_normal(noise, tril)))


def _normal(noise, tril):
    # Without the barrier XLA would draw the noise again for each of the D sums. The default
    # precision would leave 10 bits of mantissa on some accelerators.
    noise = _numerics.computed_once(noise)
    v = jnp.einsum("...j,ij->...i", noise, jnp.tril(tril), precision="highest")
    return _numerics.computed_once(v)


def concrete_log_prob(z, logits, correlation_tril, *, temperature):
    """Compute the log-density of `concrete` at z in (0, 1)^D.

    Value: sum_i (bernoulli.concrete_log_prob(z_i) - log R_ii) - (|R^-1 v|^2 - |v|^2) / 2, the
      marginals times the density of the copula, where R is correlation_tril and v solves
      log Phi(v) - log Phi(-v) = temperature log(z / (1 - z)) - logits, Phi the normal cdf; -inf
      outside [0, 1]^D. z is clamped into the open interval of its dtype, so that every draw has a
      finite value; the gradient in z is 0 where z is clamped.

    Args:
      z: (..., D) floats in [0, 1]; broadcast with logits.
      logits: (..., D) finite floats, log-odds.
      correlation_tril: (D, D) floats, the Cholesky factor of the correlation matrix: lower
        triangular, with rows of norm 1 within 1e-3, and used as it is.
      temperature: positive scalar, or an array of the broadcast batch shape; may be traced. It is
        required, so that it cannot disagree with that of the sampler.

    Returns:
      Nats, in the batch shape that z and logits broadcast to and in the dtype of logits;
      differentiable in all four.

    Raises:
      TypeError: z, logits or correlation_tril are not floats, or temperature is no number.
      ValueError: a Python or NumPy temperature is not positive or correlation_tril no such factor
        (a jax.Array gives NaN), logits have no axis of bits, or the shapes do not fit.

    Source: Sklar's theorem; Song 2000, Scandinavian Journal of Statistics 27(2).
    """
    z_dtype = _arguments.floats("z", z).dtype
    z, wide, dtype = _arguments.broadcast_together(z, logits, event_ndim=1)
    tril = _arguments.correlation_factor(correlation_tril, wide)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    outside = jnp.any((z < 0) | (z > 1), axis=-1)
    z = _numerics.interior(z, z_dtype)
    log_z, log_1z = jnp.log(z), jnp.log1p(-z)
    y = log_z - log_1z
    v = _special.normal_score(temperature * y - wide)
    columns = v.reshape(-1, v.shape[-1]).T
    eps = jax.scipy.linalg.solve_triangular(tril, columns, lower=True).T.reshape(v.shape)
    terms = _numerics.logistic_log_density(y, wide, temperature) - log_z - log_1z
    terms -= (eps - v) * (eps + v) / 2
    value = jnp.sum(terms, axis=-1) - jnp.sum(jnp.log(jnp.diagonal(tril)))
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


def concrete_and_log_prob(key, logits, correlation_tril, *, temperature=0.5, shape=None):
    """Sample as `concrete` does, and compute the log-density of the draw from its noise.

    Value: (z, log_prob), where z is the draw of `concrete` for the same key. log_prob is exact also
      where z has rounded to 0 or 1, where `concrete_log_prob` of z is only finite.
    Gradient: exact; z has the gradient of `concrete`, and the gradient of log_prob includes the
      path through z.
    Cost: O(D^2) time per draw.

    Args:
      key: PRNG key.
      logits: (..., D) floats, log-odds; where one is infinite there is no density, and log_prob
        means nothing.
      correlation_tril: (D, D) floats, the Cholesky factor of the correlation matrix, which all
        draws share: lower triangular, with rows of norm 1 within 1e-3, and used as it is.
      temperature: positive scalar, or an array of the batch shape, without D; may be traced.
      shape: batch shape of z, without D, to which that of logits broadcasts; None takes that of
        logits.

    Returns:
      z, of shape (*shape, D), and log_prob in nats, of shape `shape`, both in the dtype of logits.

    Raises:
      TypeError: logits or correlation_tril are not floats, temperature is no number, or shape no
        tuple of integers.
      ValueError: a Python or NumPy temperature is not positive or correlation_tril no such factor
        (a jax.Array gives NaN), logits have no axis of bits, or correlation_tril, temperature or
        shape does not fit the shape of logits.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    tril = _arguments.correlation_factor(correlation_tril, wide)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    noise = _noise.normal(key, wide.shape, wide.dtype)
    v = _normal(noise, tril)
    x = wide + _numerics.computed_once(_special.normal_logit(v))
    # These are the log-density of the noise, less the log-slopes of v, y and z in turn.
    terms = -(noise * noise + math.log(2 * math.pi)) / 2
    terms -= jnp.broadcast_to(jnp.log(jnp.diagonal(tril)), v.shape)
    terms += jnp.log(temperature / _special.normal_rate(v))
    terms += _numerics.softplus_sum(_rules.tempered(x, temperature))
    z = _rules.tempered_sigmoid(x, temperature)
    return z.astype(dtype), jnp.sum(terms, axis=-1).astype(dtype)


def straight_through(key, logits, correlation_tril, *, temperature=0.5, shape=None):
    """Sample exact bits joined by a Gaussian copula, with the gradient of `concrete`.

    Distribution: z = b = 1[logits + lam(v) > 0], exactly 0.0 or 1.0, v = R eps, where R is
      correlation_tril, eps ~ N(0, I), Phi is the normal cdf, and lam(v) = log Phi(v) - log Phi(-v).
      At every temperature each bit is Bernoulli(p), p = sigmoid(logits), and all of them are 1 with
      the normal orthant probability of v at Phi^-1(p).
    Gradient: for logits and correlation_tril that of `concrete` with the same noise; 0 for
      temperature, on which the distribution does not depend.
    Bias: present even for linear f.
    Cost: one call of f; O(D^2) time per draw.

    Args:
      key: PRNG key.
      logits: (..., D) floats, log-odds; -inf and +inf make a bit that is always 0 or 1, with
        gradient 0.
      correlation_tril: (D, D) floats, the Cholesky factor of the correlation matrix, which all
        draws share: lower triangular, with rows of norm 1 within 1e-3, and used as it is.
      temperature: positive scalar, or an array of the batch shape, without D; may be traced.
      shape: batch shape of z, without D, to which that of logits broadcasts; None takes that of
        logits.

    Returns:
      z, of shape (*shape, D), in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits or correlation_tril are not floats, temperature is no number, or shape no
        tuple of integers.
      ValueError: a Python or NumPy temperature is not positive or correlation_tril no such factor
        (a jax.Array gives NaN), logits have no axis of bits, or correlation_tril, temperature or
        shape does not fit the shape of logits.

    Source: Lee et al. 2022, "Self-supervision enhanced feature selection with correlated gates",
      with the logistic noise of Maddison et al. 2017, arXiv:1611.00712.
    """
    x, temperature, dtype = _joint_draw(key, logits, correlation_tril, temperature, shape)
    return jnp.asarray(_rules.tempered_bit(x, temperature), dtype)
