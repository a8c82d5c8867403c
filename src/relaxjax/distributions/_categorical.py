"""One of C classes."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from tensorflow_probability.substrates.jax import distributions as tfd

from relaxjax import _numerics, categorical
from relaxjax.distributions._base import HardLaw, Law, both_ways, logits_of, register_kl


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


class StraightThroughOneHotCategorical(HardLaw):
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

    @property
    def _law_logits(self):
        if self.estimator != "decoupled":
            return self.logits
        masked = self.logits == -jnp.inf  # whose quotient has the derivative NaN
        logits = _numerics.widen(jnp.where(masked, 0, self.logits))
        tempered = logits / self.forward_temperature[..., None]
        return jnp.where(masked, -jnp.inf, tempered).astype(self.dtype)

    def mode(self):
        return _numerics.one_hot_of_largest(self._law_logits)

    def variance(self):
        # 1 - p without cancellation.
        log_p = jax.nn.log_softmax(_numerics.widen(self._law_logits))
        return (-jnp.exp(log_p) * jnp.expm1(log_p)).astype(self.dtype)

    def _points(self):
        return np.eye(self.logits.shape[-1])


@register_kl(
    *both_ways(StraightThroughOneHotCategorical, distrax.OneHotCategorical, tfd.OneHotCategorical)
)
def _one_hot_kl(q, p):
    return categorical.kl(logits_of(q), logits_of(p))
