"""Distributions of k-hot vectors: n independent bits given their sum."""

import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _numerics, families, subsets
from relaxjax.distributions._base import ChoiceLaw, register_kl


class Subset(ChoiceLaw):
    """An exact k-hot: independent bits given that their sum is k, with `subsets.zgr`'s gradient.

    Distribution: P(x) is proportional to exp(sum_i x_i logits_i); entries exactly 0.0 and 1.0, k of
      them 1.
    Log-probability: that of x, by `subsets.log_prob`.
    KL divergence: in closed form with another of the same k.
    Closed forms: mean, mode, variance, entropy; enumerate_support() runs in the order of
      itertools.combinations.

    Args:
      logits: (..., n) floats, log-odds; -inf masks an item, whose x and gradient are 0. A row with
        fewer than k unmasked items, a NaN or +inf gives NaN.
      k: static integer from 1 to n.

    Raises:
      TypeError: logits are not floats, or k is no static integer.
      ValueError: logits have no axis of items, k is not from 1 to n or, for a KL divergence, both
        sides do not have one k.
    """

    has_enumerate_support = True

    def __init__(self, logits, k):
        self._store_choice(logits, k)

    def _draw(self, key, shape):
        return subsets.zgr(key, self.logits, self.k, shape=shape)

    def log_prob(self, value):
        return subsets.log_prob(value, self.logits, self.k)

    def mean(self):
        return subsets.mean(self.logits, self.k)

    def mode(self):
        logits = _arguments.nan_rows(_numerics.widen(self.logits), self.k)
        k_hot = _numerics.k_hot(logits, self.k)
        return jnp.where(jnp.isnan(logits), jnp.nan, k_hot).astype(self.dtype)

    def variance(self):
        mean = subsets.mean(_numerics.widen(self.logits), self.k)
        return (mean * (1 - mean)).astype(self.dtype)

    def entropy(self):
        return subsets.entropy(self.logits, self.k)

    def _points(self):
        return families.support_of_subsets(np.zeros(self.logits.shape[-1], np.float32), self.k)


@register_kl((Subset, Subset))
def _subset_kl(q, p):
    if q.k != p.k:
        raise ValueError(f"Subset: got k = {q.k} and k = {p.k}, need one k on both sides")
    return subsets.kl(q.logits, p.logits, p.k)
