"""Gradient estimators for discrete random variables, as pure functions of a key and arrays.

Samplers of a law module (`bernoulli`, `correlated`, `categorical`, `gates`, `simplex`, `top_k`,
`subsets`, `counts`) return a sample that carries a gradient; estimators of `score` and
`control_variates` return a loss that does. `estimator` gives every method one signature,
(key, f, logits) -> scalar, by name from `catalog`, and `audit` measures the bias, variance and cost
of any.
"""

from relaxjax import (
    audit,
    bernoulli,
    catalog,
    categorical,
    control_variates,
    correlated,
    counts,
    families,
    gates,
    laplace_bridge,
    score,
    simplex,
    subsets,
    top_k,
)
from relaxjax.catalog import estimator
from relaxjax.families import Family

__all__ = [
    "Family",
    "audit",
    "bernoulli",
    "catalog",
    "categorical",
    "control_variates",
    "correlated",
    "counts",
    "estimator",
    "families",
    "gates",
    "laplace_bridge",
    "score",
    "simplex",
    "subsets",
    "top_k",
]
__version__ = "0.1.0"
