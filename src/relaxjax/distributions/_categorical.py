"""Distributions of one of C classes."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from tensorflow_probability.substrates.jax import distributions as tfd

from relaxjax import _numerics, categorical
from relaxjax.distributions._base import HardLaw, Law, both_ways, logits_of, register_kl


class RelaxedOneHotCategorical(Law):
    """A relaxed one-hot in the simplex, with the gradient of `categorical.gumbel_softmax`.

    Distribution: z = softmax((logits + G) / temperature), G_i ~ Gumbel; rounding may give exactly 0
      or 1.
    Log-probability: the log-density of z, by `categorical.gumbel_softmax_log_prob`.
    No closed form: mean, mode, variance, entropy and KL divergence.

    Args:
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class, whose z and
        gradient are 0. A row that is masked throughout, or has a NaN or +inf, gives NaN.
      temperature: positive scalar, or an array that broadcasts with the batch shape; may be traced.

    Raises:
      TypeError: logits are not floats, or temperature is no number.
      ValueError: logits have no axis of classes, temperature does not broadcast with the batch
        shape, or a Python or NumPy temperature is not positive.
    """

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
    """An exact one-hot, with the gradient that `estimator` names.

    Distribution: d ~ Categorical(softmax(logits)), entries exactly 0.0 and 1.0, whatever the
      estimator but for "decoupled", for which it is
      Categorical(softmax(logits / forward_temperature)).
    Estimators: "straight_through" (temperature); "gumbel_softmax" (temperature), which is
      straight_through_gumbel_softmax; "reinmax" (temperature); "zgr"; "decoupled"
      (forward_temperature, backward_temperature), which is decoupled_straight_through; "gapped"
      (temperature, gap), which is gapped_straight_through; "gumbel_rao" (temperature, num_noise);
      all of them functions of `categorical`.
    Log-probability: that of d, by `categorical.log_prob`.
    KL divergence: in closed form with another, whatever the estimators, and with the
      OneHotCategorical of distrax and of TFP.
    Closed forms: mean, mode, variance, entropy; enumerate_support() is every one-hot.

    Args:
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class, whose d and
        gradient are 0. A row that is masked throughout, or has a NaN or +inf, gives NaN.
      estimator: one of the names above, "straight_through" by default.
      **hyperparameters: those of the estimator in brackets above, with the defaults of its
        function: temperatures are positive and gap nonnegative, each a scalar or an array that
        broadcasts with the batch shape, and may be traced; num_noise is a static integer >= 1.

    Raises:
      TypeError: logits are not floats, estimator is no string, a hyperparameter is not one of the
        estimator's or is no number, or num_noise is no static integer.
      ValueError: logits have no axis of classes, estimator is another one, a hyperparameter does
        not broadcast with the batch shape, a Python or NumPy one is out of its range, or num_noise
        is below 1.
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
        masked = self.logits == -jnp.inf  # their quotient would have the derivative NaN
        logits = _numerics.widen(jnp.where(masked, 0, self.logits))
        tempered = logits / self.forward_temperature[..., None]
        return jnp.where(masked, -jnp.inf, tempered).astype(self.dtype)

    def mode(self):
        return _numerics.one_hot_of_largest(self._law_logits)

    def variance(self):
        # From log p, which keeps more digits of 1 - p than p does.
        log_p = jax.nn.log_softmax(_numerics.widen(self._law_logits))
        return (-jnp.exp(log_p) * jnp.expm1(log_p)).astype(self.dtype)

    def _points(self):
        return np.eye(self.logits.shape[-1])


@register_kl(
    *both_ways(StraightThroughOneHotCategorical, distrax.OneHotCategorical, tfd.OneHotCategorical)
)
def _one_hot_kl(q, p):
    return categorical.kl(logits_of(q), logits_of(p))
