"""Gradient estimators for discrete random variables, as pure functions of a key and arrays.

Start with `estimator`, which gives every method one signature, (key, f, logits) -> scalar, by its
name in `catalog`. The samplers of `bernoulli`, `correlated`, `categorical`, `gates`, `simplex`,
`top_k`, `subsets` and `counts` return a sample that carries a gradient; the estimators of `score`
and `control_variates` return a loss that does. `audit` measures the bias, variance and cost of any.
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
