"""Relaxed one-hot vectors that are functions of a Gaussian instead of Gumbel noise.

Start with `invertible_gaussian`: it maps a Gaussian of C - 1 dimensions onto the simplex in a way
that can be inverted, so that its density and its KL divergence are closed forms. `logistic_normal`
is the softmax of a Gaussian of C dimensions.

Classes are the last axis, and the axes before it are independent variables.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _noise, _numerics, _rules

# -------------------------------------------------------------------------- invertible Gaussian


def invertible_gaussian(key, mean, *, scale=1.0, temperature=1.0, offset=1.0, shape=None):
    """Sample a relaxed one-hot vector from a Gaussian by a modified softmax that has an inverse.

    Distribution: z = softmax(x), x_i = (mean_i + scale_i eps_i) / temperature for i < C,
      x_C = log(offset), eps_i ~ N(0, 1).
    Gradient: exact. With g the gradient in z, J(z) = diag(z) - z z^T, h = J(z) g / temperature and
      i < C: h_i for mean, h_i eps_i for scale, -sum_i h_i x_i for temperature, and
      h_C temperature / offset for offset.
    Bias: none for E[f(z)] under this distribution.
    Cost: one call of f; O(C) time and memory per draw.

    Args:
      key: PRNG key.
      mean: (..., C - 1) floats; -inf makes an entry of z that is always 0. A row with a NaN or +inf
        gives NaN.
      scale: standard deviation: a positive scalar, an array of the batch shape with one number per
        row, or one of the shape of mean with one number per entry; may be traced.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      offset: the same; x_C is its logarithm.
      shape: batch shape of z, to which that of mean broadcasts; None takes that of mean.

    Returns:
      z, of shape (*shape, C), in the dtype of mean; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: mean is not floats, a hyperparameter is no number, or shape no tuple of integers.
      ValueError: mean has no last axis, a Python or NumPy hyperparameter is not positive (a
        jax.Array gives NaN), or a hyperparameter or shape does not fit the batch shape.

    Source: Potapczynski, Loaiza-Ganem, Cunningham 2020, arXiv:1912.09588; their mu, sigma, tau and
      delta are mean, scale, temperature and offset here.
    """
    wide, dtype, scale, temperature = _parameters(mean, scale, temperature, shape, least=0)
    offset = _arguments.hyperparameter("offset", offset, wide, event_ndim=1)
    noise = _noise.normal(key, wide.shape, wide.dtype)
    return _invertible_gaussian(noise, wide, scale, temperature, offset).astype(dtype)


def _invertible_gaussian(noise, mean, scale, temperature, offset):
    x = _with_last(mean + scale * noise, temperature, offset)
    return _rules.tempered_softmax(x, temperature)


def _with_last(x, temperature, offset):
    """Append the last class to x, such that it is log(offset) once x is divided by temperature."""
    last = jnp.broadcast_to(temperature * jnp.log(offset), (*x.shape[:-1], 1))
    return jnp.concatenate([x, last], axis=-1)


def invertible_gaussian_log_prob(z, mean, *, scale, temperature, offset):
    """Compute the log-density of `invertible_gaussian` at z in the simplex.

    Value: sum_{i<C} (log N(y_i; mean_i, scale_i^2) + log temperature) - sum_{i<=C} log z_i, where
      y_i = temperature (log z_i - log z_C + log offset); -inf where an entry is negative. It is the
      density in the first C - 1 entries of z. z is clamped to the smallest normal number of its
      dtype, so that every draw has a finite value; the gradient in z is 0 where z is clamped.

    Args:
      z: (..., C) floats, rows that sum to 1; broadcast with mean.
      mean: (..., C - 1) finite floats.
      scale: standard deviation: a positive scalar, an array of the broadcast batch shape with one
        number per row, or one of the shape of mean with one number per entry; may be traced. It is
        required, like temperature and offset, so that none can disagree with the sampler's.
      temperature: positive scalar, or an array of the broadcast batch shape; may be traced.
      offset: the same.

    Returns:
      Nats, in the batch shape that z and mean broadcast to and in the dtype of mean; differentiable
      in all five.

    Raises:
      TypeError: z or mean is not floats, or a hyperparameter is no number.
      ValueError: z or mean has no last axis, z has not one class more than mean has entries, a
        Python or NumPy hyperparameter is not positive (a jax.Array gives NaN), or the shapes do not
        broadcast together.

    Source: Potapczynski et al. 2020, arXiv:1912.09588.
    """
    z = _arguments.floats("z", z, 1)
    z_dtype, own = z.dtype, _arguments.floats("mean", mean, 1, 0)
    if z.shape[-1] != own.shape[-1] + 1:
        raise ValueError(
            f"z: got shape {list(z.shape)}, need (..., C) for a mean of (..., C - 1), "
            f"here {list(own.shape)}"
        )
    # A column stands in for the last class, so that both have one shape.
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
    """Sample as `invertible_gaussian` does, and compute the log-density of the draw from its noise.

    Value: (z, log_prob), where z is the draw of `invertible_gaussian` for the same key. log_prob is
      exact also where an entry of z has rounded to 0 or 1, where `invertible_gaussian_log_prob` of
      z is only finite.
    Gradient: exact; z has the gradient of `invertible_gaussian`, and the gradient of log_prob
      includes the path through z.
    Cost: O(C) time and memory per draw.

    Args:
      key: PRNG key.
      mean: (..., C - 1) floats; where one is infinite there is no density, and log_prob means
        nothing.
      scale: standard deviation: a positive scalar, an array of the batch shape with one number per
        row, or one of the shape of mean with one number per entry; may be traced.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      offset: the same.
      shape: batch shape of z, to which that of mean broadcasts; None takes that of mean.

    Returns:
      z, of shape (*shape, C), and log_prob in nats, of shape `shape`, both in the dtype of mean.

    Raises:
      TypeError: mean is not floats, a hyperparameter is no number, or shape no tuple of integers.
      ValueError: mean has no last axis, a Python or NumPy hyperparameter is not positive (a
        jax.Array gives NaN), or a hyperparameter or shape does not fit the batch shape.
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
    """Compute the KL divergence of two `invertible_gaussian` of one temperature and one offset.

    Value: sum_i (log(scale_p / scale_q) + (scale_q^2 + (mean_q - mean_p)^2) / (2 scale_p^2) - 1/2),
      the KL divergence of the Gaussians: the map onto the simplex has an inverse and drops out. It
      is meaningless where temperature or offset differ.

    Args:
      mean_q: (..., C - 1) finite floats.
      scale_q: standard deviation: a positive scalar, an array of the broadcast batch shape with one
        number per row, or one of the shape of mean_q with one number per entry; may be traced.
      mean_p: the same as mean_q, for p; broadcast with mean_q.
      scale_p: the same as scale_q, for p.

    Returns:
      Nats, in the batch shape that both means broadcast to and in the dtype of mean_p;
      differentiable in all four.

    Raises:
      TypeError: mean_q or mean_p is not floats, or a scale is no number.
      ValueError: a mean has no last axis, a Python or NumPy scale is not positive (a jax.Array
        gives NaN), or the shapes do not broadcast together.
    """
    q, p, scale_q, scale_p, dtype = _two(mean_q, scale_q, mean_p, scale_p, least=0)
    log_ratio = jnp.log(scale_q / scale_p)
    # By expm1 equal scales give exactly 0, and close ones at worst a little less than 0.
    terms = (jnp.expm1(2 * log_ratio) - 2 * log_ratio + ((q - p) / scale_p) ** 2) / 2
    return jnp.sum(terms, axis=-1).astype(dtype)


# ------------------------------------------------------------------------------ logistic-normal


def logistic_normal(key, mean, *, scale=1.0, temperature=1.0, shape=None):
    """Sample a relaxed one-hot vector as the softmax of a Gaussian: a logistic-normal vector.

    Distribution: z = softmax((mean + scale eps) / temperature), eps_i ~ N(0, 1). The Gaussian has
      one dimension more than the simplex: a shift of mean changes nothing, and log z_i - log z_j is
      N((mean_i - mean_j) / temperature, (scale_i^2 + scale_j^2) / temperature^2).
    Gradient: exact. With g the gradient in z, J(z) = diag(z) - z z^T and h = J(z) g / temperature:
      h_i for mean, h_i eps_i for scale, and -sum_i h_i log z_i for temperature.
    Bias: none for E[f(z)] under this distribution.
    Cost: one call of f; O(C) time and memory per draw.

    Args:
      key: PRNG key.
      mean: (..., C) floats; -inf makes an entry of z that is always 0. A row that holds nothing
        else, or has a NaN or +inf, gives NaN.
      scale: standard deviation: a positive scalar, an array of the batch shape with one number per
        row, or one of the shape of mean with one number per entry; may be traced.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      shape: batch shape of z, to which that of mean broadcasts; None takes that of mean.

    Returns:
      z, of shape (*shape, C), in the dtype of mean; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: mean is not floats, scale or temperature is no number, or shape no tuple of
        integers.
      ValueError: mean has no axis of classes, a Python or NumPy scale or temperature is not
        positive (a jax.Array gives NaN), or one of them or shape does not fit the batch shape.

    Source: Aitchison, Shen 1980, "Logistic-normal distributions", with a temperature.
    """
    wide, dtype, scale, temperature = _parameters(mean, scale, temperature, shape)
    noise = _noise.normal(key, wide.shape, wide.dtype)
    return _logistic_normal(noise, wide, scale, temperature).astype(dtype)


def _logistic_normal(noise, mean, scale, temperature):
    return _rules.tempered_softmax(mean + scale * noise, temperature)


def logistic_normal_log_prob(z, mean, *, scale, temperature):
    """Compute the log-density of `logistic_normal` at z in the simplex.

    Value: the log-density of the Gaussian at temperature log z - mean, integrated over a common
      shift, less sum_i log z_i, which is
      sum_i (log N(r_i; m, scale_i^2) + log temperature - log z_i)
      - log(temperature^2 W / (2 pi)) / 2, where r_i = temperature log z_i - mean_i,
      W = sum_i 1 / scale_i^2, m = sum_i r_i / (W scale_i^2), and i runs over the n classes that a
      mean of -inf does not mask; -inf where a masked class has z > 0, or an entry is negative. It
      is the density in any n - 1 of these n entries of z. z is clamped to the smallest normal
      number of its dtype, so that every draw has a finite value; the gradient in z is 0 where z is
      clamped.

    Args:
      z: (..., C) floats, rows that sum to 1; broadcast with mean.
      mean: (..., C) floats; -inf masks a class. A row with a NaN or +inf gives NaN.
      scale: standard deviation: a positive scalar, an array of the broadcast batch shape with one
        number per row, or one of the shape of mean with one number per entry; may be traced. It is
        required, like temperature, so that neither can disagree with the sampler's.
      temperature: positive scalar, or an array of the broadcast batch shape; may be traced.

    Returns:
      Nats, in the batch shape that z and mean broadcast to and in the dtype of mean; differentiable
      in all four.

    Raises:
      TypeError: z or mean is not floats, or scale or temperature is no number.
      ValueError: z or mean has no axis of classes, a Python or NumPy scale or temperature is not
        positive (a jax.Array gives NaN), or the shapes do not broadcast together.

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
    """Sample as `logistic_normal` does, and compute the log-density of the draw from its noise.

    Value: (z, log_prob), where z is the draw of `logistic_normal` for the same key. log_prob is
      exact also where an entry of z has rounded to 0 or 1, where `logistic_normal_log_prob` of z is
      only finite.
    Gradient: exact; z has the gradient of `logistic_normal`, and the gradient of log_prob includes
      the path through z.
    Cost: O(C) time and memory per draw.

    Args:
      key: PRNG key.
      mean: (..., C) floats; -inf makes an entry of z that is always 0. A row with a NaN or +inf
        gives NaN.
      scale: standard deviation: a positive scalar, an array of the batch shape with one number per
        row, or one of the shape of mean with one number per entry; may be traced.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      shape: batch shape of z, to which that of mean broadcasts; None takes that of mean.

    Returns:
      z, of shape (*shape, C), and log_prob in nats, of shape `shape`, both in the dtype of mean.

    Raises:
      TypeError: mean is not floats, scale or temperature is no number, or shape no tuple of
        integers.
      ValueError: mean has no axis of classes, a Python or NumPy scale or temperature is not
        positive (a jax.Array gives NaN), or one of them or shape does not fit the batch shape.
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
    """Compute the log-density of the differences of log z: that of the Gaussian, integrated over a
    common shift.
    """
    masked = mean == -jnp.inf
    scale, temperature = (jnp.broadcast_to(x, mean.shape) for x in (scale, temperature))
    r = jnp.where(masked, 0, temperature * log_z - jnp.where(masked, 0, mean))
    weight, total = _precision(scale, masked)
    r -= _numerics.row_sum(weight * r) / total
    # The differences have one dimension fewer than there are unmasked classes.
    terms = jnp.log(temperature / scale) - math.log(2 * math.pi) / 2 - weight * r * r / 2
    value = jnp.sum(jnp.where(masked, 0, terms), axis=-1)
    value -= (jnp.log(temperature * temperature * total / (2 * math.pi)) / 2)[..., 0]
    return jnp.where(jnp.all(masked, axis=-1), jnp.nan, value)


def logistic_normal_kl(mean_q, scale_q, mean_p, scale_p):
    """Compute the KL divergence of two `logistic_normal` of one temperature, which drops out.

    Value: the KL divergence of the two Gaussians, each integrated over a common shift. A
      temperature is a change of mean and scale, so that two distributions of different temperatures
      compare at mean / temperature and scale / temperature.

    Args:
      mean_q: (..., C) finite floats.
      scale_q: standard deviation: a positive scalar, an array of the broadcast batch shape with one
        number per row, or one of the shape of mean_q with one number per entry; may be traced.
      mean_p: the same as mean_q, for p; broadcast with mean_q.
      scale_p: the same as scale_q, for p.

    Returns:
      Nats, in the batch shape that both means broadcast to and in the dtype of mean_p;
      differentiable in all four.

    Raises:
      TypeError: mean_q or mean_p is not floats, or a scale is no number.
      ValueError: a mean has no axis of classes, a Python or NumPy scale is not positive (a
        jax.Array gives NaN), or the shapes do not broadcast together.
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
    """Return scale, with one number in all, per row or per entry, so that it combines with wide,
    which is mean wide and broadcast.
    """
    shape = np.shape(scale)
    entries = shape == np.shape(mean) or len(shape) == wide.ndim
    return _arguments.hyperparameter(name, scale, wide, event_ndim=0 if entries else 1)


def _parameters(mean, scale, temperature, shape, least=1):
    """Return mean wide and broadcast, the dtype to return, scale and temperature."""
    wide, dtype = _arguments.parameters("mean", mean, shape, 1, least)
    scale = _scale("scale", scale, mean, wide)
    return wide, dtype, scale, _arguments.hyperparameter("temperature", temperature, wide, 1)


def _two(mean_q, scale_q, mean_p, scale_p, least=1):
    """Return the means and scales of two distributions, wide, and the dtype to return."""
    _arguments.floats("mean_q", mean_q, 1, least)
    q, p, dtype = _arguments.broadcast_together(mean_q, mean_p, 1, "mean_q", "mean_p", least)
    scale_q = _scale("scale_q", scale_q, mean_q, q)
    return q, p, scale_q, _scale("scale_p", scale_p, mean_p, p), dtype
