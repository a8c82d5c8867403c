"""Bits joined by a Gaussian copula."""

from relaxjax import _arguments, _numerics, correlated
from relaxjax.distributions._base import Law


class CorrelatedRelaxedBernoulli(Law):
    """Relaxed bits (..., D) joined by a Gaussian copula, by `correlated.concrete`.

    correlation_tril is (D, D) and shared by the batch: slicing keeps it, and vmap over an instance
    takes None for its axis.
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
