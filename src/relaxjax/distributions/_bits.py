"""Bits and gates."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from tensorflow_probability.substrates.jax import distributions as tfd

from relaxjax import _arguments, _numerics, bernoulli, gates
from relaxjax.distributions._law import (
    Hard,
    Law,
    agree,
    both_ways,
    entropy_of,
    finite_kl,
    logits_of,
    register_kl,
)


class RelaxedBernoulli(Law):
    """A relaxed bit in (0, 1), by `bernoulli.concrete`.

    KL divergence in closed form with another or TFP's; NaN where the temperatures differ.
    """

    def __init__(self, logits, *, temperature=0.5):
        self._store(logits, temperature=temperature)

    def _draw(self, key, shape):
        return bernoulli.concrete(key, self.logits, temperature=self.temperature, shape=shape)

    def _draw_and_log_prob(self, key, shape):
        y = bernoulli.logit_concrete(key, self.logits, temperature=self.temperature, shape=shape)
        log_prob = bernoulli.logit_concrete_log_prob(y, self.logits, temperature=self.temperature)
        return self._draw(key, shape), log_prob + _numerics.softplus_sum(y)

    def log_prob(self, value):
        return bernoulli.concrete_log_prob(value, self.logits, temperature=self.temperature)


@register_kl(*both_ways(RelaxedBernoulli, tfd.RelaxedBernoulli))
def _relaxed_bernoulli_kl(q, p):
    kl = bernoulli.concrete_kl(logits_of(q), logits_of(p))
    same = jnp.broadcast_to(agree((q.temperature, p.temperature)), kl.shape)
    return jnp.where(same, kl, jnp.nan)


class StraightThroughBernoulli(Hard):
    """A bit, exactly 0.0 or 1.0, with the gradient that `estimator` names.

    Estimators, of `bernoulli`: "straight_through"; "concrete", straight_through_concrete
      (temperature); "zgr"; "gumbel_rao" (temperature, num_noise).
    Closed forms: mean, mode, variance, entropy; the KL divergence with another, whatever the
      estimators, and with the Bernoulli of distrax and of TFP.
    """

    _module = bernoulli
    _estimators = {
        "straight_through": bernoulli.straight_through,
        "concrete": bernoulli.straight_through_concrete,
        "zgr": bernoulli.zgr,
        "gumbel_rao": bernoulli.gumbel_rao,
    }

    def __init__(self, logits, *, estimator="straight_through", **hyperparameters):
        self._store_estimator(logits, estimator, hyperparameters)

    def mode(self):
        one = (self.logits > 0).astype(self.dtype)
        return jnp.where(jnp.isnan(self.logits), jnp.nan, one)

    def variance(self):
        return _numerics.sigmoid_slope(_numerics.widen(self.logits)).astype(self.dtype)

    def _log_p(self):
        return _log_bits(self)

    def _points(self):
        return np.array([0.0, 1.0])


def _log_bits(law):
    logits = _numerics.widen(jnp.asarray(logits_of(law)))
    return jnp.stack([jax.nn.log_sigmoid(-logits), jax.nn.log_sigmoid(logits)], axis=-1)


@register_kl(*both_ways(StraightThroughBernoulli, distrax.Bernoulli, tfd.Bernoulli))
def _bernoulli_kl(q, p):
    return finite_kl(_log_bits(q), _log_bits(p)).astype(logits_of(p).dtype)


class GaussianRelaxedBernoulli(Law):
    """A Gaussian clipped to [0, 1], by `gates.gaussian`; log_prob is a mass at 0 and 1.

    Closed forms: mean, variance; entropy and the KL divergence with another, with respect to the
      measure of log_prob.
    """

    _parameter = "mean"

    def __init__(self, mean, *, scale=0.5):
        self._store(mean, scale=scale)

    def _draw(self, key, shape):
        return gates.gaussian(key, self.loc, scale=self.scale, shape=shape)

    def log_prob(self, value):
        return gates.gaussian_log_prob(value, self.loc, scale=self.scale)

    def mean(self):
        return gates._gaussian_moments(_numerics.widen(self.loc), self.scale)[0].astype(self.dtype)

    def variance(self):
        return gates._gaussian_moments(_numerics.widen(self.loc), self.scale)[1].astype(self.dtype)

    def entropy(self):
        own = _numerics.widen(self.loc), self.scale
        return gates._gaussian_cross_entropy(*own, *own).astype(self.dtype)


@register_kl((GaussianRelaxedBernoulli, GaussianRelaxedBernoulli))
def _gaussian_kl(q, p):
    loc_q, loc_p, dtype = _arguments.together(q.loc, p.loc, 0, "q", "p")
    q, p = (
        (loc, jnp.broadcast_to(law.scale.astype(loc.dtype), loc.shape))
        for loc, law in ((loc_q, q), (loc_p, p))
    )
    cross_entropy = gates._gaussian_cross_entropy
    return (cross_entropy(*q, *p) - cross_entropy(*q, *q)).astype(dtype)


class CorrelatedRelaxedBernoulli(Law):
    """Relaxed bits (..., D) joined by a Gaussian copula, by `bernoulli.correlated_concrete`.

    correlation_tril is (D, D) and shared by the batch: slicing keeps it, and vmap over an instance
    takes None for its axis.
    """

    _event_ndim, _shared = 1, ("correlation_tril",)

    def __init__(self, logits, correlation_tril, *, temperature=0.5):
        self._store(logits, temperature=temperature)
        with self._named():
            wide = _numerics.widen(self.logits)
            self.correlation_tril = bernoulli._correlation_factor(correlation_tril, wide)

    def _draw(self, key, shape):
        return bernoulli.correlated_concrete(
            key, self.logits, self.correlation_tril, temperature=self.temperature, shape=shape
        )

    def _draw_and_log_prob(self, key, shape):
        log_prob = bernoulli._correlated_concrete_own_log_prob(
            key, self.logits, self.correlation_tril, self.temperature, shape
        )
        return self._draw(key, shape), log_prob

    def log_prob(self, value):
        return bernoulli.correlated_concrete_log_prob(
            value, self.logits, self.correlation_tril, temperature=self.temperature
        )


class HardConcrete(Law):
    """A relaxed bit stretched and clipped to [0, 1], by `gates.hard_concrete`; log_prob is a mass
    at 0 and 1."""

    def __init__(self, logits, *, temperature=2 / 3, stretch=(-0.1, 1.1)):
        with self._named():
            low, high = gates._pair(stretch)
        self._store(logits, temperature=temperature, stretch_low=low, stretch_high=high)

    @property
    def _hyperparameters(self):
        stretch = self.stretch_low, self.stretch_high
        return {"temperature": self.temperature, "stretch": stretch}

    def _draw(self, key, shape):
        return gates.hard_concrete(key, self.logits, shape=shape, **self._hyperparameters)

    def log_prob(self, value):
        return gates.hard_concrete_log_prob(value, self.logits, **self._hyperparameters)


class StochasticTimesSmooth(Law):
    """A bit of probability q = sqrt(p) times q, by `bernoulli.stochastic_times_smooth`.

    Closed forms: mean p, mode, variance, entropy. log_prob takes what is q to rounding for q.
    """

    has_enumerate_support = True

    def __init__(self, logits):
        self._store(logits)

    def _draw(self, key, shape):
        return bernoulli.stochastic_times_smooth(key, self.logits, shape=shape)

    def log_prob(self, value):
        return bernoulli._stochastic_times_smooth_log_prob(value, self.logits)

    def mean(self):
        return bernoulli.mean(self.logits)

    def mode(self):
        q = bernoulli._root(_numerics.widen(self.logits))
        return jnp.where(q <= 0.5, 0, q).astype(self.dtype)

    def variance(self):
        log_zero, log_q = bernoulli._root_log_probs(_numerics.widen(self.logits))
        return jnp.exp(3 * log_q + log_zero).astype(self.dtype)

    def entropy(self):
        log_p = jnp.stack(bernoulli._root_log_probs(_numerics.widen(self.logits)), axis=-1)
        return entropy_of(log_p).astype(self.dtype)

    def enumerate_support(self):
        """0 and q, (2, *batch_shape)."""
        q = bernoulli._root(_numerics.widen(self.logits)).astype(self.dtype)
        return jnp.stack([jnp.zeros_like(q), q])
