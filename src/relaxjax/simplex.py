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

from relaxjax import _arguments, _numerics

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
    _arguments.vector("mean", mean, least=0)
    wide, dtype = _arguments.parameters("mean", mean, shape, event_ndim=1, least=0)
    scale = _scale("scale", scale, mean, wide)
    temperature = _arguments.real("temperature", temperature, wide, event_ndim=1)
    offset = _arguments.real("offset", offset, wide, event_ndim=1)
    noise = _numerics.normal(key, wide.shape, wide.dtype)
    return _invertible_gaussian(noise, wide, scale, temperature, offset).astype(dtype)


@jax.custom_vjp
def _invertible_gaussian(noise, mean, scale, temperature, offset):
    x = (mean + scale * noise) / temperature
    last = jnp.broadcast_to(jnp.log(offset), (*x.shape[:-1], 1))
    return _numerics.softmax(jnp.concatenate([x, last], axis=-1))


def _invertible_gaussian_fwd(noise, mean, scale, temperature, offset):
    z = _invertible_gaussian(noise, mean, scale, temperature, offset)
    return z, (z, noise, mean, scale, temperature, offset)


def _invertible_gaussian_bwd(residuals, g):
    z, noise, mean, scale, temperature, offset = residuals
    h = _numerics.covariance(z, g) / temperature
    dmean, last = h[..., :-1], h[..., -1:]
    return (
        None,
        dmean,
        _numerics.sum_like(dmean * noise, scale),
        _numerics.sum_like(-dmean * _finite(mean + scale * noise), temperature) / temperature,
        _numerics.sum_like(last * temperature, offset) / offset,
    )


_invertible_gaussian.defvjp(_invertible_gaussian_fwd, _invertible_gaussian_bwd)


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
    z = _arguments.vector("z", z)
    z_dtype, own = z.dtype, _arguments.vector("mean", mean, least=0)
    if z.shape[-1] != own.shape[-1] + 1:
        raise ValueError(
            f"z: got shape {list(z.shape)}, need (..., C) for a mean of (..., C - 1), "
            f"here {list(own.shape)}"
        )
    # A column for the last class, so that both have one shape.
    own = jnp.concatenate([own, jnp.zeros_like(own, shape=(*own.shape[:-1], 1))], axis=-1)
    z, wide, dtype = _arguments.together(z, own, event_ndim=1, other="mean")
    wide = wide[..., :-1]
    scale = _scale("scale", scale, mean, wide)
    temperature = _arguments.real("temperature", temperature, wide, event_ndim=1)
    offset = _arguments.real("offset", offset, wide, event_ndim=1)
    outside = jnp.any(z < 0, axis=-1)
    tiny = float(jnp.finfo(z_dtype).tiny)
    log_z = jnp.log(jnp.where(z < tiny, tiny, z))
    y = temperature * (log_z[..., :-1] - log_z[..., -1:] + jnp.log(offset))
    terms = -(((y - wide) / scale) ** 2) / 2 + jnp.log(temperature) - jnp.log(scale)
    value = jnp.sum(terms - math.log(2 * math.pi) / 2, axis=-1) - jnp.sum(log_z, axis=-1)
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


def _invertible_gaussian_own_log_prob(key, mean, scale, temperature, offset, shape):
    """Log-density of the draw with this key, from its noise; all wide, scale as mean."""
    noise, mean, scale, temperature = _own(key, mean, scale, temperature, shape)
    last = jnp.broadcast_to(jnp.log(offset)[..., None], (*shape, 1))
    x = (mean + scale * noise) / temperature
    log_z = jax.nn.log_softmax(jnp.concatenate([x, last], axis=-1))
    terms = jnp.log(temperature / scale) - (noise * noise + math.log(2 * math.pi)) / 2
    return jnp.sum(terms, axis=-1) - jnp.sum(log_z, axis=-1)


def _own(key, mean, scale, temperature, shape):
    """The noise of the draw with this key, and the parameters in its shape."""
    noise = _numerics.normal(key, (*shape, mean.shape[-1]), mean.dtype)
    return noise, *(jnp.broadcast_to(x, noise.shape) for x in (mean, scale, temperature[..., None]))


def invertible_gaussian_kl(mean_q, scale_q, mean_p, scale_p):
    """KL divergence of two `invertible_gaussian` of one temperature and one offset.

    Value: sum_i log(scale_p / scale_q) + (scale_q^2 + (mean_q - mean_p)^2) / (2 scale_p^2) - 1/2,
      that of the Gaussians: the map onto the simplex has an inverse and drops out. Meaningless
      where temperature or offset differ.
    Args: means (..., C - 1), broadcast together; scales as the sampler takes them.
    Returns nats, in the broadcast batch shape and the dtype of mean_p; differentiable in all four.
    """
    _arguments.vector("mean_q", mean_q, least=0)
    _arguments.vector("mean_p", mean_p, least=0)
    q, p, dtype = _arguments.together(mean_q, mean_p, 1, "mean_q", "mean_p", least=0)
    scale_q = _scale("scale_q", scale_q, mean_q, q)
    scale_p = _scale("scale_p", scale_p, mean_p, p)
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
    _arguments.vector("mean", mean)
    wide, dtype = _arguments.parameters("mean", mean, shape, event_ndim=1)
    scale = _scale("scale", scale, mean, wide)
    temperature = _arguments.real("temperature", temperature, wide, event_ndim=1)
    noise = _numerics.normal(key, wide.shape, wide.dtype)
    return _logistic_normal(noise, wide, scale, temperature).astype(dtype)


@jax.custom_vjp
def _logistic_normal(noise, mean, scale, temperature):
    return _numerics.softmax((mean + scale * noise) / temperature)


def _logistic_normal_fwd(noise, mean, scale, temperature):
    z = _logistic_normal(noise, mean, scale, temperature)
    return z, (z, noise, mean, scale, temperature)


def _logistic_normal_bwd(residuals, g):
    z, noise, mean, scale, temperature = residuals
    dmean = _numerics.covariance(z, g) / temperature
    return (
        None,
        dmean,
        _numerics.sum_like(dmean * noise, scale),
        _numerics.sum_like(-dmean * _finite(mean + scale * noise), temperature) / temperature,
    )


_logistic_normal.defvjp(_logistic_normal_fwd, _logistic_normal_bwd)


def _logistic_normal_log_prob(z, mean, *, scale, temperature):
    """Log-density of `logistic_normal` in the first C - 1 entries of z, clamped as elsewhere."""
    z_dtype = _arguments.vector("z", z).dtype
    z, wide, dtype = _arguments.together(z, mean, event_ndim=1, other="mean")
    scale = _scale("scale", scale, mean, wide)
    temperature = _arguments.real("temperature", temperature, wide, event_ndim=1)
    masked = wide == -jnp.inf
    outside = jnp.any((z < 0) | (masked & (z > 0)), axis=-1)
    tiny = float(jnp.finfo(z_dtype).tiny)
    log_z = jnp.log(jnp.where(masked, 1, jnp.where(z < tiny, tiny, z)))
    value = _log_ratio_density(log_z, wide, scale, temperature) - jnp.sum(log_z, axis=-1)
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


def _logistic_normal_own_log_prob(key, mean, scale, temperature, shape):
    """Log-density of the draw with this key, from its noise; all wide, scale as mean."""
    noise, mean, scale, temperature = _own(key, mean, scale, temperature, shape)
    masked = mean == -jnp.inf
    x = (jnp.where(masked, 0, mean) + scale * noise) / temperature
    log_z = jnp.where(masked, 0, jax.nn.log_softmax(jnp.where(masked, -jnp.inf, x)))
    return _log_ratio_density(log_z, mean, scale, temperature) - jnp.sum(log_z, axis=-1)


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


def _logistic_normal_kl(mean_q, scale_q, mean_p, scale_p):
    """That of the Gaussians, each integrated over a common shift; all of one shape."""
    (weight_q, total_q), (weight_p, total_p) = (_precision(s, False) for s in (scale_q, scale_p))
    shift = mean_q - mean_p
    shift -= _numerics.row_sum(weight_p * shift) / total_p
    trace = jnp.sum(weight_p / weight_q, axis=-1)
    trace -= (_numerics.row_sum(weight_p**2 / weight_q) / total_p)[..., 0]
    square = jnp.sum(weight_p * shift**2, axis=-1)
    log_ratio = (
        jnp.sum(jnp.log(scale_p / scale_q), axis=-1) + jnp.log(total_p / total_q)[..., 0] / 2
    )
    return (trace - (shift.shape[-1] - 1) + square) / 2 + log_ratio


def _precision(scale, masked):
    weight = jnp.where(masked, 0, 1 / (scale * scale))
    return weight, _numerics.row_sum(weight)


def _finite(y):
    # For 0 * y in a masked class.
    return jnp.where(jnp.isinf(y), 0, y)


def _scale(name, scale, mean, wide):
    """scale to combine with wide, which is mean wide and broadcast: a scalar, one a row or all."""
    shape = np.shape(scale)
    entries = shape == np.shape(mean) or len(shape) == wide.ndim
    return _arguments.real(name, scale, wide, event_ndim=0 if entries else 1)
