"""k-hots: n independent bits given their sum."""

import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _numerics, families, subsets
from relaxjax.distributions._base import ChoiceLaw, register_kl


class Subset(ChoiceLaw):
    """A k-hot, n independent bits given that their sum is k, with the gradient of `subsets.zgr`.

    Closed forms: mean, mode, variance, entropy; the KL divergence with another of the same k.
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
