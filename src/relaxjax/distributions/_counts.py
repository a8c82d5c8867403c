"""Distributions of one of n values."""

from relaxjax import _arguments, counts
from relaxjax.distributions._base import Law


class GeneralizedGumbelSoftmax(Law):
    """A relaxed one of n values, with the gradient of `counts.generalized_gumbel_softmax`.

    Distribution: z = sum_k w_k values_k, w = softmax((log_probs + G) / temperature), G_k ~ Gumbel;
      event_shape is ().
    Log-probability: the density of z has no closed form. log_prob is the log-probability of a value
      that is exactly one of `values`, to which samples tend as the temperature falls, and NaN for
      another, by `counts.log_prob_of_value`.
    No closed form: mean, mode, variance, entropy and KL divergence.

    Args:
      log_probs: (..., n) floats, unnormalized log-probabilities; -inf masks a value, whose gradient
        is 0. A row that is masked throughout, or has a NaN or +inf, gives samples of NaN.
      values: (..., n) floats; leading axes broadcast with those of log_probs.
      temperature: positive scalar, or an array that broadcasts with the batch shape; may be traced.

    Raises:
      TypeError: log_probs or values are not floats, or temperature is no number.
      ValueError: log_probs or values have no axis of values, the arguments do not broadcast, or a
        Python or NumPy temperature is not positive.
    """

    _parameter, _event_ndim, _by_entry = "log_probs", 1, ("values",)

    def __init__(self, log_probs, values, *, temperature=0.5):
        with self._named():
            values = _arguments.floats("values", values, 1)
        self._store(log_probs, values=values, temperature=temperature)

    @property
    def event_shape(self):
        return ()

    def _draw(self, key, shape):
        return counts.generalized_gumbel_softmax(
            key, self.log_probs, self.values, temperature=self.temperature, shape=shape
        )

    def log_prob(self, value):
        return counts.log_prob_of_value(value, self.log_probs, self.values)
