"""Gradient estimators for discrete random variables, as pure functions of a key and arrays.

Samplers of a law module (`bernoulli`, `categorical`) return a sample that carries a gradient;
`estimator` gives every method one signature, (key, f, logits) -> scalar, by name from `catalog`.
"""

from relaxjax import bernoulli, catalog, categorical, families
from relaxjax.catalog import estimator
from relaxjax.families import Family

__all__ = ["Family", "bernoulli", "catalog", "categorical", "estimator", "families"]
__version__ = "0.1.0"
