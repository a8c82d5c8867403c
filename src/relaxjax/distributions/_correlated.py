"""Distributions of bits joined by a Gaussian copula."""

from relaxjax import _arguments, _numerics, correlated
from relaxjax.distributions._base import Law


class CorrelatedRelaxedBernoulli(Law):
    """Relaxed bits joined by a Gaussian copula, with the gradient of `correlated.concrete`.

    Slicing keeps correlation_tril, which the batch shares, and vmap over an instance takes None for
    its axis.

    Distribution: z = s((logits + lam(v)) / temperature), v = R eps, R = correlation_tril, eps
      standard Gaussian, lam(v) = log Phi(v) - log Phi(-v), s the sigmoid; rounding may give exactly
      0 or 1.
    Log-probability: the log-density of all D entries together, by `correlated.concrete_log_prob`,
      for finite logits.
    No closed form: mean, mode, variance, entropy and KL divergence.

    Args:
      logits: (..., D) floats, log-odds.
      correlation_tril: (D, D) floats, the Cholesky factor of the correlation matrix: lower
        triangular, its rows of norm 1 within 1e-3, used as they are.
      temperature: positive scalar, or an array that broadcasts with the batch shape; may be traced.

    Raises:
      TypeError: logits or correlation_tril are not floats, or temperature is no number.
      ValueError: logits have no axis of bits, correlation_tril has another shape or, in NumPy, is
        no such factor, temperature does not broadcast with the batch shape, or a Python or NumPy
        temperature is not positive.
    """

    _event_ndim, _shared = 1, ("correlation_tril",)

    def __init__(self, logits, correlation_tril, *, temperature=0.5):
        self._store(logits, temperature=temperature)
        with self._named():
            wide = _numerics.widen(self.logits)
            self.correlation_tril = _arguments.correlation_factor(correlation_tril, wide)

    def _draw(self, key, shape):
        return correlated.concrete(
            key, self.logits, self.correlation_tril, temperature=self.temperature, shape=shape
        )

    def _draw_and_log_prob(self, key, shape):
        return correlated.concrete_and_log_prob(
            key, self.logits, self.correlation_tril, temperature=self.temperature, shape=shape
        )

    def log_prob(self, value):
        return correlated.concrete_log_prob(
            value, self.logits, self.correlation_tril, temperature=self.temperature
        )
