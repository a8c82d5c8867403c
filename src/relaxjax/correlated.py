"""Bits (..., D) joined by a Gaussian copula: each a bit of `bernoulli`, together correlated.

Start with `concrete`; `straight_through` is exactly 0 or 1 forward.

In the formulas R is correlation_tril, eps standard Gaussian noise, v = R eps, Phi the normal cdf,
phi its density, lam(v) = log Phi(v) - log Phi(-v), which makes each v a standard logistic variable,
s the sigmoid, g the incoming cotangent.
"""

import math

import jax
import jax.numpy as jnp

from relaxjax import _arguments, _noise, _numerics, _rules, _special


def concrete(key, logits, correlation_tril, *, temperature=0.5, shape=None):
    """Relaxed bits (..., D), each a `bernoulli.concrete`, joined by a Gaussian copula.

    Law: z = s(y), y = (logits + lam(v)) / temperature. Rounding may give exactly 0 or 1.
    Gradient: exact: to logits h = g s'(y) / temperature, to temperature -sum_i h_i y_i, to R the
      lower triangle of (h lam'(v)) eps^T; lam' = phi / (Phi Phi(-.)).
    Bias: none for E[f(z)] under this law; biased for E[f(b)].
    Cost: O(D^2) a draw.
    Args:
      logits: (..., D) log-odds.
      correlation_tril: (D, D), the Cholesky factor of the correlation matrix, which all draws
        share: lower triangular, its rows of norm 1 within 1e-3, used as they are. Another raises
        ValueError in NumPy and gives NaN in a jax.Array.
      temperature: positive; a scalar or of the batch shape, without D.
      shape: the batch shape of z, without D.
    Source: Lee et al. 2022, "Self-supervision enhanced feature selection with correlated gates",
      with the logistic noise of Maddison et al. 2017, arXiv:1611.00712.
    """
    x, temperature, dtype = _joint_draw(key, logits, correlation_tril, temperature, shape)
    return _rules.tempered_sigmoid(x, temperature).astype(dtype)


def _joint_draw(key, logits, tril, temperature, shape):
    """logits + lam(v), the temperature beside it, and the dtype to return."""
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    tril = _arguments.correlation_factor(tril, wide)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    noise = _noise.normal(key, wide.shape, wide.dtype)
    return wide + _logistic(noise, tril), temperature, dtype


def _logistic(noise, tril):
    return _numerics.computed_once(_special.normal_logit(_normal(noise, tril)))


def _normal(noise, tril):
    # XLA would draw the noise again for each of the D sums. Not the default precision, which has
    # 10 bits of mantissa on some accelerators.
    noise = _numerics.computed_once(noise)
    v = jnp.einsum("...j,ij->...i", noise, jnp.tril(tril), precision="highest")
    return _numerics.computed_once(v)


def concrete_log_prob(z, logits, correlation_tril, *, temperature):
    """Log-density of `concrete` at z in (0, 1)^D.

    Value: sum_i (bernoulli.concrete_log_prob(z_i) - log R_ii) - (|R^-1 v|^2 - |v|^2) / 2,
      lam(v) = temperature logit(z) - logits: the marginals times the density of the copula. z is
      clamped as in `bernoulli.concrete_log_prob`.
    Args:
      z: (..., D) in [0, 1], broadcast with logits.
      logits, correlation_tril, temperature: as in `concrete`, logits finite and temperature
        required.
    Returns the broadcast batch shape, in the dtype of logits; differentiable in all four.
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
    """The draw of `concrete`, and its log-density computed from the noise.

    Value: (z, log_prob); log_prob is exact also where z has rounded to 0 or 1, where
      `concrete_log_prob` of z is only finite.
    Args: as `concrete`.
    Returns (*shape, D) and (*shape), in the dtype of logits.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    tril = _arguments.correlation_factor(correlation_tril, wide)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    noise = _noise.normal(key, wide.shape, wide.dtype)
    v = _normal(noise, tril)
    x = wide + _numerics.computed_once(_special.normal_logit(v))
    # The density of the noise, and its slope in y's, v's and z's turn.
    terms = -(noise * noise + math.log(2 * math.pi)) / 2
    terms -= jnp.broadcast_to(jnp.log(jnp.diagonal(tril)), v.shape)
    terms += jnp.log(temperature / _special.normal_rate(v))
    terms += _numerics.softplus_sum(_rules.tempered(x, temperature))
    z = _rules.tempered_sigmoid(x, temperature)
    return z.astype(dtype), jnp.sum(terms, axis=-1).astype(dtype)


def straight_through(key, logits, correlation_tril, *, temperature=0.5, shape=None):
    """Bits (..., D) joined by a Gaussian copula, with the gradient of `concrete`.

    Law: z = b = 1[logits + lam(v) > 0], exactly 0.0 or 1.0, each bit Bernoulli(p) and all of them
      1 with the normal orthant probability of v at Phi^-1(p), at every temperature.
    Gradient: that of `concrete` with the same noise, in logits and correlation_tril; 0 in
      temperature, on which the law does not depend.
    Bias: present even for linear f.
    Cost, args: as `concrete`.
    Source: as `concrete`.
    """
    x, temperature, dtype = _joint_draw(key, logits, correlation_tril, temperature, shape)
    return jnp.asarray(_rules.tempered_bit(x, temperature), dtype)
