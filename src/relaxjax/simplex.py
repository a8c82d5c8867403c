"""Relaxed one-hots that are functions of a Gaussian, instead of Gumbel noise.

Start with `invertible_gaussian`: a Gaussian in C - 1 dimensions and a map onto the simplex that can
be inverted, so that its density and its KL divergence are closed forms. `logistic_normal` is the
softmax of a Gaussian in C dimensions.

Throughout: `key` is a PRNG key; `mean` is (..., C - 1) or (..., C), leading axes independent
variables, -inf a class of exactly 0; a row with a NaN or +inf gives NaN. A hyperparameter is a
positive scalar or has the batch shape, one number a row, and `scale`, a standard deviation, may
have the shape of mean, one number an entry; each may be traced, and raises ValueError when a Python
or NumPy number is out of range (a jax.Array gives NaN). `shape` is the batch shape of the result,
without the axis of classes; None takes that of mean. Results have the dtype of mean; arithmetic and
noise are in float32 or wider. Integers or a scalar for mean raise TypeError, a shape that it does
not broadcast to ValueError. Every sampler serves one call of f and costs O(C) time and memory a
variable. In the formulas eps is standard Gaussian, g the incoming cotangent, and
J(z) = diag(z) - z z^T.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _noise, _numerics, _rules

# -------------------------------------------------------------------------- invertible Gaussian


def invertible_gaussian(key, mean, *, scale=1.0, temperature=1.0, offset=1.0, shape=None):
    """A Gaussian through the modified softmax, which has an inverse.

    Law: z = softmax(x), x_i = (mean_i + scale eps_i) / temperature for i < C, x_C = log(offset).
    Gradient: exact. With h = J(z) g / temperature and i < C, to mean h_i, to scale h_i eps_i, to
      temperature -sum_i h_i x_i, and to offset h_C temperature / offset.
    Bias: none for E[f(z)] under this law.
    Args: mean: (..., C - 1), for results (..., C).
    Source: Potapczynski, Loaiza-Ganem, Cunningham 2020, arXiv:1912.09588; their mu, sigma, tau,
      delta are mean, scale, temperature, offset.
    """
    wide, dtype, scale, temperature = _parameters(mean, scale, temperature, shape, least=0)
    offset = _arguments.hyperparameter("offset", offset, wide, event_ndim=1)
    noise = _noise.normal(key, wide.shape, wide.dtype)
    return _invertible_gaussian(noise, wide, scale, temperature, offset).astype(dtype)


def _invertible_gaussian(noise, mean, scale, temperature, offset):
    x = _with_last(mean + scale * noise, temperature, offset)
    return _rules.tempered_softmax(x, temperature)


def _with_last(x, temperature, offset):
    """x with the last class beside it, which is log(offset) once x is divided by temperature."""
    last = jnp.broadcast_to(temperature * jnp.log(offset), (*x.shape[:-1], 1))
    return jnp.concatenate([x, last], axis=-1)


def invertible_gaussian_log_prob(z, mean, *, scale, temperature, offset):
    """Log-density of `invertible_gaussian` at z in the simplex.

    Value: sum_{i<C} (log N(y_i; mean_i, scale_i^2) + log temperature) - sum_{i<=C} log z_i, with
      y_i = temperature (log z_i - log z_C + log offset): the density in the first C - 1 entries of
      z. z is clamped to its dtype's smallest normal number, so that every draw has a finite value;
      gradient 0 where clamped.
    Args:
      z: (..., C), rows that sum to 1, broadcast with mean.
      mean: (..., C - 1), finite.
      scale, temperature, offset: required, so that they cannot disagree with the sampler's.
    Returns the broadcast batch shape, in the dtype of mean; differentiable in all five.
    Source: Potapczynski et al. 2020, arXiv:1912.09588.
    """
    z = _arguments.floats("z", z, 1)
    z_dtype, own = z.dtype, _arguments.floats("mean", mean, 1, 0)
    if z.shape[-1] != own.shape[-1] + 1:
        raise ValueError(
            f"z: got shape {list(z.shape)}, need (..., C) for a mean of (..., C - 1), "
            f"here {list(own.shape)}"
        )
    # A column for the last class, so that both have one shape.
    own = jnp.concatenate([own, jnp.zeros_like(own, shape=(*own.shape[:-1], 1))], axis=-1)
    z, wide, dtype = _arguments.broadcast_together(z, own, event_ndim=1, other="mean")
    wide = wide[..., :-1]
    scale = _scale("scale", scale, mean, wide)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    offset = _arguments.hyperparameter("offset", offset, wide, event_ndim=1)
    outside = jnp.any(z < 0, axis=-1)
    tiny = float(jnp.finfo(z_dtype).tiny)
    log_z = jnp.log(jnp.where(z < tiny, tiny, z))
    y = temperature * (log_z[..., :-1] - log_z[..., -1:] + jnp.log(offset))
    terms = -(((y - wide) / scale) ** 2) / 2 + jnp.log(temperature) - jnp.log(scale)
    value = jnp.sum(terms - math.log(2 * math.pi) / 2, axis=-1) - jnp.sum(log_z, axis=-1)
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


def invertible_gaussian_and_log_prob(
    key, mean, *, scale=1.0, temperature=1.0, offset=1.0, shape=None
):
    """The draw of `invertible_gaussian`, and its log-density computed from the noise.

    Value: (z, log_prob); log_prob is exact also where an entry of z has rounded to 0 or 1, where
      `invertible_gaussian_log_prob` of z is only finite.
    Args: as `invertible_gaussian`.
    Returns (*shape, C) and (*shape), in the dtype of mean.
    """
    wide, dtype, scale, temperature = _parameters(mean, scale, temperature, shape, least=0)
    offset = _arguments.hyperparameter("offset", offset, wide, event_ndim=1)
    noise = _noise.normal(key, wide.shape, wide.dtype)
    x = _with_last(wide + scale * noise, temperature, offset)
    log_z = jax.nn.log_softmax(x / temperature)
    terms = jnp.log(temperature / scale) - (noise * noise + math.log(2 * math.pi)) / 2
    z = _rules.tempered_softmax(x, temperature)
    log_prob = jnp.sum(terms, axis=-1) - jnp.sum(log_z, axis=-1)
    return z.astype(dtype), log_prob.astype(dtype)


def invertible_gaussian_kl(mean_q, scale_q, mean_p, scale_p):
    """KL divergence of two `invertible_gaussian` of one temperature and one offset.

    Value: sum_i log(scale_p / scale_q) + (scale_q^2 + (mean_q - mean_p)^2) / (2 scale_p^2) - 1/2,
      that of the Gaussians: the map onto the simplex has an inverse and drops out. Meaningless
      where temperature or offset differ.
    Args: means (..., C - 1), broadcast together; scales as the sampler takes them.
    Returns nats, in the broadcast batch shape and the dtype of mean_p; differentiable in all four.
    """
    q, p, scale_q, scale_p, dtype = _two(mean_q, scale_q, mean_p, scale_p, least=0)
    log_ratio = jnp.log(scale_q / scale_p)
    # expm1: equal scales give exactly 0, and close ones little less.
    terms = (jnp.expm1(2 * log_ratio) - 2 * log_ratio + ((q - p) / scale_p) ** 2) / 2
    return jnp.sum(terms, axis=-1).astype(dtype)


# ------------------------------------------------------------------------------ logistic-normal


def logistic_normal(key, mean, *, scale=1.0, temperature=1.0, shape=None):
    """The softmax of a Gaussian: a logistic-normal law on the simplex.

    Law: z = softmax((mean + scale eps) / temperature). One dimension more than the simplex has: a
      shift of mean changes nothing, and log z_i - log z_j is N((mean_i - mean_j) / temperature,
      (scale_i^2 + scale_j^2) / temperature^2).
    Gradient: exact. With h = J(z) g / temperature, to mean h, to scale h_i eps_i, to temperature
      -sum_i h_i log z_i.
    Bias: none for E[f(z)] under this law.
    Args: mean: (..., C), for results (..., C).
    Source: Aitchison, Shen 1980, "Logistic-normal distributions", with a temperature.
    """
    wide, dtype, scale, temperature = _parameters(mean, scale, temperature, shape)
    noise = _noise.normal(key, wide.shape, wide.dtype)
    return _logistic_normal(noise, wide, scale, temperature).astype(dtype)


def _logistic_normal(noise, mean, scale, temperature):
    return _rules.tempered_softmax(mean + scale * noise, temperature)


def logistic_normal_log_prob(z, mean, *, scale, temperature):
    """Log-density of `logistic_normal` at z in the simplex.

    Value: that of the Gaussian's differences at temperature log z - mean, integrated over a common
      shift, less sum_i log z_i: the density in any n - 1 of the n unmasked entries of z. z is
      clamped to its dtype's smallest normal number, so that every draw has a finite value; gradient
      0 where clamped.
    Args:
      z: (..., C), rows that sum to 1, broadcast with mean.
      mean: (..., C).
      scale, temperature: required, so that they cannot disagree with the sampler's.
    Returns the broadcast batch shape, in the dtype of mean; differentiable in all four.
    Source: Aitchison, Shen 1980, "Logistic-normal distributions", with a temperature.
    """
    z_dtype = _arguments.floats("z", z, 1).dtype
    z, wide, dtype = _arguments.broadcast_together(z, mean, event_ndim=1, other="mean")
    scale = _scale("scale", scale, mean, wide)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    masked = wide == -jnp.inf
    outside = jnp.any((z < 0) | (masked & (z > 0)), axis=-1)
    tiny = float(jnp.finfo(z_dtype).tiny)
    log_z = jnp.log(jnp.where(masked, 1, jnp.where(z < tiny, tiny, z)))
    value = _log_ratio_density(log_z, wide, scale, temperature) - jnp.sum(log_z, axis=-1)
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


def logistic_normal_and_log_prob(key, mean, *, scale=1.0, temperature=1.0, shape=None):
    """The draw of `logistic_normal`, and its log-density computed from the noise.

    Value: (z, log_prob); log_prob is exact also where an entry of z has rounded to 0 or 1, where
      `logistic_normal_log_prob` of z is only finite.
    Args: as `logistic_normal`.
    Returns (*shape, C) and (*shape), in the dtype of mean.
    """
    wide, dtype, scale, temperature = _parameters(mean, scale, temperature, shape)
    noise = _noise.normal(key, wide.shape, wide.dtype)
    masked = wide == -jnp.inf
    x = (jnp.where(masked, 0, wide) + scale * noise) / temperature
    log_z = jnp.where(masked, 0, jax.nn.log_softmax(jnp.where(masked, -jnp.inf, x)))
    log_prob = _log_ratio_density(log_z, wide, scale, temperature) - jnp.sum(log_z, axis=-1)
    z = _logistic_normal(noise, wide, scale, temperature)
    return z.astype(dtype), log_prob.astype(dtype)


def _log_ratio_density(log_z, mean, scale, temperature):
    """The density of log z's differences: that of the Gaussian, integrated over a common shift."""
    masked = mean == -jnp.inf
    scale, temperature = (jnp.broadcast_to(x, mean.shape) for x in (scale, temperature))
    r = jnp.where(masked, 0, temperature * log_z - jnp.where(masked, 0, mean))
    weight, total = _precision(scale, masked)
    r -= _numerics.row_sum(weight * r) / total
    # One dimension fewer than there are unmasked classes.
    terms = jnp.log(temperature / scale) - math.log(2 * math.pi) / 2 - weight * r * r / 2
    value = jnp.sum(jnp.where(masked, 0, terms), axis=-1)
    return value - (jnp.log(temperature * temperature * total / (2 * math.pi)) / 2)[..., 0]


def logistic_normal_kl(mean_q, scale_q, mean_p, scale_p):
    """KL divergence of two `logistic_normal` of one temperature, which drops out.

    Value: that of the Gaussians, each integrated over a common shift. A temperature is a change of
      mean and scale: laws of two temperatures compare at mean / temperature, scale / temperature.
    Args: means (..., C), finite, broadcast together; scales as the sampler takes them.
    Returns nats, in the broadcast batch shape and the dtype of mean_p; differentiable in all four.
    """
    q, p, scale_q, scale_p, dtype = _two(mean_q, scale_q, mean_p, scale_p)
    scale_q, scale_p = (jnp.broadcast_to(scale, q.shape) for scale in (scale_q, scale_p))
    (weight_q, total_q), (weight_p, total_p) = (_precision(s, False) for s in (scale_q, scale_p))
    shift = q - p
    shift -= _numerics.row_sum(weight_p * shift) / total_p
    trace = jnp.sum(weight_p / weight_q, axis=-1)
    trace -= (_numerics.row_sum(weight_p**2 / weight_q) / total_p)[..., 0]
    square = jnp.sum(weight_p * shift**2, axis=-1)
    log_ratio = (
        jnp.sum(jnp.log(scale_p / scale_q), axis=-1) + jnp.log(total_p / total_q)[..., 0] / 2
    )
    return ((trace - (shift.shape[-1] - 1) + square) / 2 + log_ratio).astype(dtype)


def _precision(scale, masked):
    weight = jnp.where(masked, 0, 1 / (scale * scale))
    return weight, _numerics.row_sum(weight)


def _scale(name, scale, mean, wide):
    """scale to combine with wide, which is mean wide and broadcast: a scalar, one a row or all."""
    shape = np.shape(scale)
    entries = shape == np.shape(mean) or len(shape) == wide.ndim
    return _arguments.hyperparameter(name, scale, wide, event_ndim=0 if entries else 1)


def _parameters(mean, scale, temperature, shape, least=1):
    """mean wide and broadcast, the dtype to return, and the two hyperparameters."""
    wide, dtype = _arguments.parameters("mean", mean, shape, 1, least)
    scale = _scale("scale", scale, mean, wide)
    return wide, dtype, scale, _arguments.hyperparameter("temperature", temperature, wide, 1)


def _two(mean_q, scale_q, mean_p, scale_p, least=1):
    """Means and scales of two laws, wide, and the dtype to return."""
    _arguments.floats("mean_q", mean_q, 1, least)
    q, p, dtype = _arguments.broadcast_together(mean_q, mean_p, 1, "mean_q", "mean_p", least)
    scale_q = _scale("scale_q", scale_q, mean_q, q)
    return q, p, scale_q, _scale("scale_p", scale_p, mean_p, p), dtype
