"""Functions of a Gaussian on the simplex."""

import jax.numpy as jnp

from relaxjax import _numerics, simplex
from relaxjax.distributions._base import Law, agree, register_kl


class InvertibleGaussian(Law):
    """A Gaussian (..., C - 1) through an invertible softmax, by `simplex.invertible_gaussian`.

    KL divergence in closed form with another; NaN where temperatures or offsets differ.
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
    """The softmax of a Gaussian (..., C), by `simplex.logistic_normal`; log_prob is in closed form.

    KL divergence in closed form with another, at any temperatures; finite means alone.
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
