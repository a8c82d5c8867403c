"""One of C classes, and what relaxes it."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from tensorflow_probability.substrates.jax import distributions as tfd

from relaxjax import _arguments, _numerics, categorical, simplex
from relaxjax.distributions._law import (
    Hard,
    Law,
    agree,
    both_ways,
    finite_kl,
    logits_of,
    register_kl,
)


class RelaxedOneHotCategorical(Law):
    """A relaxed one-hot in the simplex, by `categorical.gumbel_softmax`."""

    _event_ndim = 1

    def __init__(self, logits, *, temperature=0.5):
        self._store(logits, temperature=temperature)

    def _draw(self, key, shape):
        return categorical.gumbel_softmax(
            key, self.logits, temperature=self.temperature, shape=shape
        )

    def _draw_and_log_prob(self, key, shape):
        temperature = self.temperature
        u = categorical.log_gumbel_softmax(key, self.logits, temperature=temperature, shape=shape)
        log_prob = categorical.log_gumbel_softmax_log_prob(u, self.logits, temperature=temperature)
        return self._draw(key, shape), log_prob - jnp.sum(jnp.where(u == -jnp.inf, 0, u), axis=-1)

    def log_prob(self, value):
        return categorical.gumbel_softmax_log_prob(value, self.logits, temperature=self.temperature)


class StraightThroughOneHotCategorical(Hard):
    """A one-hot, entries exactly 0.0 and 1.0, with the gradient that `estimator` names.

    Estimators, of `categorical`: "straight_through" (temperature); "gumbel_softmax",
      straight_through_gumbel_softmax (temperature); "reinmax" (temperature); "zgr"; "decoupled",
      decoupled_straight_through (forward_temperature, of which the law depends, and
      backward_temperature); "gapped", gapped_straight_through (temperature, gap); "gumbel_rao"
      (temperature, num_noise).
    Closed forms: mean, mode, variance, entropy; the KL divergence with another, whatever the
      estimators, and with the OneHotCategorical of distrax and of TFP.
    """

    _event_ndim = 1
    _module = categorical
    _estimators = {
        "straight_through": categorical.straight_through,
        "gumbel_softmax": categorical.straight_through_gumbel_softmax,
        "reinmax": categorical.reinmax,
        "zgr": categorical.zgr,
        "decoupled": categorical.decoupled_straight_through,
        "gapped": categorical.gapped_straight_through,
        "gumbel_rao": categorical.gumbel_rao,
    }

    def __init__(self, logits, *, estimator="straight_through", **hyperparameters):
        self._store_estimator(logits, estimator, hyperparameters)

    @property
    def _law_logits(self):
        if self.estimator != "decoupled":
            return self.logits
        masked = self.logits == -jnp.inf  # whose quotient has the derivative NaN
        logits = _numerics.widen(jnp.where(masked, 0, self.logits))
        tempered = logits / self.forward_temperature[..., None]
        return jnp.where(masked, -jnp.inf, tempered).astype(self.dtype)

    def mode(self):
        law = self._law_logits
        d = jax.nn.one_hot(jnp.argmax(law, axis=-1), law.shape[-1], dtype=self.dtype)
        return jnp.where(jnp.isfinite(jnp.max(law, axis=-1, keepdims=True)), d, jnp.nan)

    def variance(self):
        # 1 - p without cancellation.
        log_p = self._log_p()
        return (-jnp.exp(log_p) * jnp.expm1(log_p)).astype(self.dtype)

    def _log_p(self):
        return _log_classes(self)

    def _points(self):
        return np.eye(self.logits.shape[-1])


def _log_classes(law):
    return jax.nn.log_softmax(_numerics.widen(jnp.asarray(logits_of(law))))


@register_kl(
    *both_ways(StraightThroughOneHotCategorical, distrax.OneHotCategorical, tfd.OneHotCategorical)
)
def _one_hot_kl(q, p):
    return finite_kl(_log_classes(q), _log_classes(p)).astype(logits_of(p).dtype)


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
        log_prob = simplex._invertible_gaussian_own_log_prob(
            key, self.loc, self.scale, self.temperature, self.offset, shape
        )
        return self._draw(key, shape), log_prob

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

    def _draw(self, key, shape):
        return simplex.logistic_normal(
            key, self.loc, scale=self.scale, temperature=self.temperature, shape=shape
        )

    def _draw_and_log_prob(self, key, shape):
        log_prob = simplex._logistic_normal_own_log_prob(
            key, self.loc, self.scale, self.temperature, shape
        )
        return self._draw(key, shape), log_prob

    def log_prob(self, value):
        return simplex._logistic_normal_log_prob(
            value, self.loc, scale=self.scale, temperature=self.temperature
        )


@register_kl((LogisticNormal, LogisticNormal))
def _logistic_normal_kl(q, p):
    loc_q, loc_p, dtype = _arguments.together(q.loc, p.loc, 1, "q", "p")
    arguments = []
    for loc, law in ((loc_q, q), (loc_p, p)):
        # A temperature is a change of mean and scale.
        scale = jnp.broadcast_to(law.scale.astype(loc.dtype), loc.shape)
        temperature = jnp.broadcast_to(law.temperature.astype(loc.dtype)[..., None], loc.shape)
        arguments += [loc / temperature, scale / temperature]
    return simplex._logistic_normal_kl(*arguments).astype(dtype)
