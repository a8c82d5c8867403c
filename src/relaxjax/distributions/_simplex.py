"""Distributions on the simplex that are functions of a Gaussian."""

import jax.numpy as jnp

from relaxjax import _numerics, simplex
from relaxjax.distributions._base import Law, agree, register_kl


class InvertibleGaussian(Law):
    """A Gaussian through an invertible softmax, with the gradient of `simplex.invertible_gaussian`.

    Distribution: z = softmax(x), x_i = (mean_i + scale eps_i) / temperature for i < C,
      x_C = log(offset), eps standard Gaussian.
    Log-probability: the log-density of z in its first C - 1 entries, by
      `simplex.invertible_gaussian_log_prob`, for finite means.
    KL divergence: in closed form with another; NaN where temperatures or offsets differ.
    No closed form: mean, mode, variance, entropy.

    Args:
      mean: (..., C - 1) floats, for samples (..., C); -inf is a class that is exactly 0. It is
        stored as `loc`.
      scale: positive scalar, or an array that broadcasts with the batch shape or, with as many axes
        as mean, with mean; may be traced.
      temperature: positive scalar, or an array that broadcasts with the batch shape; may be traced.
      offset: positive scalar, or an array that broadcasts with the batch shape; may be traced.

    Raises:
      TypeError: mean is not floats, or a hyperparameter is no number.
      ValueError: mean has no axis of classes, a hyperparameter does not broadcast, or a Python or
        NumPy one is not positive.
    """

    _parameter, _event_ndim, _least, _by_entry = "mean", 1, 0, ("scale",)

    def __init__(self, mean, *, scale=1.0, temperature=1.0, offset=1.0):
        self._store(mean, scale=scale, temperature=temperature, offset=offset)

    @property
    def event_shape(self):
        return (self.loc.shape[-1] + 1,)

    @property
    def _hyperparameters(self):
        return {"scale": self.scale, "temperature": self.temperature, "offset": self.offset}

    def _draw(self, key, shape):
        return simplex.invertible_gaussian(key, self.loc, shape=shape, **self._hyperparameters)

    def _draw_and_log_prob(self, key, shape):
        return simplex.invertible_gaussian_and_log_prob(
            key, self.loc, shape=shape, **self._hyperparameters
        )

    def log_prob(self, value):
        return simplex.invertible_gaussian_log_prob(value, self.loc, **self._hyperparameters)


@register_kl((InvertibleGaussian, InvertibleGaussian))
def _invertible_gaussian_kl(q, p):
    kl = simplex.invertible_gaussian_kl(q.loc, q.scale, p.loc, p.scale)
    same = agree((q.temperature, p.temperature), (q.offset, p.offset))
    return jnp.where(same, kl, jnp.nan)


class LogisticNormal(Law):
    """The softmax of a Gaussian, with the gradient of `simplex.logistic_normal`.

    Distribution: z = softmax((mean + scale eps) / temperature), eps standard Gaussian.
    Log-probability: the log-density of z, in closed form, by `simplex.logistic_normal_log_prob`.
    KL divergence: in closed form with another, at any temperatures, for finite means.
    No closed form: mean, mode, variance, entropy.

    Args:
      mean: (..., C) floats; -inf is a class that is exactly 0. It is stored as `loc`.
      scale: positive scalar, or an array that broadcasts with the batch shape or, with as many axes
        as mean, with mean; may be traced.
      temperature: positive scalar, or an array that broadcasts with the batch shape; may be traced.

    Raises:
      TypeError: mean is not floats, or a hyperparameter is no number.
      ValueError: mean has no axis of classes, a hyperparameter does not broadcast, or a Python or
        NumPy one is not positive.
    """

    _parameter, _event_ndim, _by_entry = "mean", 1, ("scale",)

    def __init__(self, mean, *, scale=1.0, temperature=1.0):
        self._store(mean, scale=scale, temperature=temperature)

    @property
    def _hyperparameters(self):
        return {"scale": self.scale, "temperature": self.temperature}

    def _draw(self, key, shape):
        return simplex.logistic_normal(key, self.loc, shape=shape, **self._hyperparameters)

    def _draw_and_log_prob(self, key, shape):
        return simplex.logistic_normal_and_log_prob(
            key, self.loc, shape=shape, **self._hyperparameters
        )

    def log_prob(self, value):
        return simplex.logistic_normal_log_prob(value, self.loc, **self._hyperparameters)


@register_kl((LogisticNormal, LogisticNormal))
def _logistic_normal_kl(q, p):
    # A temperature is a change of mean and scale.
    arguments = []
    for law in (q, p):
        loc, temperature = _numerics.widen(law.loc), law.temperature[..., None]
        arguments += [loc / temperature, law.scale / temperature]
    return simplex.logistic_normal_kl(*arguments).astype(p.dtype)
