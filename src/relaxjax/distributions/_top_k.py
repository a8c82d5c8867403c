"""Distributions of k of n items drawn without replacement."""

import itertools
import math

import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _numerics, families, top_k
from relaxjax.distributions._base import ChoiceLaw


class GumbelSoftmaxTopK(ChoiceLaw):
    """A relaxed k-hot, with the gradient of `top_k.relaxed`.

    Distribution: the sum of k relaxed draws without replacement, each from what those before it
      left; it sums to k, and an entry may pass 1.
    Log-probability: the density has no closed form. log_prob is the Plackett-Luce log-probability
      of the set for an exactly k-hot value, to which samples tend as the temperature falls, by
      `top_k.log_prob_of_set`, and NaN for a relaxed one.
    No closed form: mean, mode, variance, entropy and KL divergence.

    Args:
      logits: (..., n) floats, unnormalized log-probabilities of the first draw; -inf masks an item,
        whose z and gradient are 0. A row with fewer than k unmasked items, a NaN or +inf gives NaN.
      k: static integer from 1 to n.
      temperature: positive scalar, or an array that broadcasts with the batch shape; may be traced.

    Raises:
      TypeError: logits are not floats, k is no static integer, or temperature is no number.
      ValueError: logits have no axis of items, k is not from 1 to n, temperature does not broadcast
        with the batch shape, or a Python or NumPy temperature is not positive.
    """

    def __init__(self, logits, k, *, temperature=0.5):
        self._store_choice(logits, k, temperature=temperature)

    def _draw(self, key, shape):
        return top_k.relaxed(key, self.logits, self.k, temperature=self.temperature, shape=shape)

    def log_prob(self, value):
        return top_k.log_prob_of_set(value, self.logits, self.k)


class PlackettLuce(ChoiceLaw):
    """The int32 indices of k of n items in the order of their draw, which carry no gradient.

    Distribution: one item after the other, from softmax(logits) over the items that are left, by
      `top_k.sample`; event_shape is (k,).
    Log-probability: that of the order, by `top_k.log_prob`, in the dtype of logits.
    Closed forms: mode, the k largest logits in order; enumerate_support() is every order of k of n
      indices.
    No closed form: mean, variance, entropy and KL divergence.

    Args:
      logits: (..., n) floats, unnormalized log-probabilities of the first draw; -inf masks an item,
        which is never drawn. A row with fewer than k unmasked items, a NaN or +inf gives -1.
      k: static integer from 1 to n.

    Raises:
      TypeError: logits are not floats, or k is no static integer.
      ValueError: logits have no axis of items, or k is not from 1 to n.
    """

    has_enumerate_support = True

    def __init__(self, logits, k):
        self._store_choice(logits, k)

    @property
    def event_shape(self):
        return (self.k,)

    @property
    def dtype(self):
        return jnp.dtype(jnp.int32)

    def _draw(self, key, shape):
        return top_k.sample(key, self.logits, self.k, shape=shape)

    def log_prob(self, value):
        value = jnp.asarray(value)
        batch = jnp.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return top_k.log_prob(
            jnp.broadcast_to(value, (*batch, *value.shape[-1:])),
            jnp.broadcast_to(self.logits, (*batch, self.logits.shape[-1])),
        )

    def mode(self):
        logits = _arguments.nan_rows(_numerics.widen(self.logits), self.k)
        return jnp.where(jnp.isnan(logits[..., :1]), -1, _numerics.top_indices(logits, self.k))

    def _points(self):
        n = self.logits.shape[-1]
        families.check_enumerable(math.perm(n, self.k), ())
        return np.array(list(itertools.permutations(range(n), self.k)))
