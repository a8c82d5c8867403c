"""Discrete distributions and their relaxations as distrax classes.

Start with `StraightThroughBernoulli`, `StraightThroughOneHotCategorical` or `Subset` for exact
samples, with `RelaxedBernoulli` or `RelaxedOneHotCategorical` for relaxed ones. `relaxjax` itself
does not import this module, which needs an extra: pip install 'relaxjax[distrax]'.

Parameters and real hyperparameters are broadcast to one batch shape and stored as arrays, the
hyperparameters in float32 or wider. Errors name the class and the argument, under `jit` too; a bad
value in a jax.Array gives NaN. An instance is a pytree of these arrays: it goes through every
transformation of JAX, its gradient is an instance, and static arguments are part of its structure.

Methods, shapes, `dtype` and slicing follow distrax: samples are (*sample_shape, *batch_shape,
*event_shape), and log_prob broadcasts, is in nats and has the dtype of the first parameter.
`sample_and_log_prob` computes a density from the draw before it is squashed or rounded, so that it
is finite and exact at every temperature, where log_prob of a sample that has rounded to the border
of its support is only finite. Methods and KL divergences that a class does not list have no closed
form and raise NotImplementedError.
"""

try:
    import distrax as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "relaxjax.distributions needs distrax: pip install 'relaxjax[distrax]'"
    ) from error

from relaxjax.distributions._bernoulli import (
    RelaxedBernoulli,
    StochasticTimesSmooth,
    StraightThroughBernoulli,
)
from relaxjax.distributions._categorical import (
    RelaxedOneHotCategorical,
    StraightThroughOneHotCategorical,
)
from relaxjax.distributions._correlated import CorrelatedRelaxedBernoulli
from relaxjax.distributions._counts import GeneralizedGumbelSoftmax
from relaxjax.distributions._gates import GaussianRelaxedBernoulli, HardConcrete
from relaxjax.distributions._simplex import InvertibleGaussian, LogisticNormal
from relaxjax.distributions._subsets import Subset
from relaxjax.distributions._top_k import GumbelSoftmaxTopK, PlackettLuce

__all__ = [
    "CorrelatedRelaxedBernoulli",
    "GaussianRelaxedBernoulli",
    "GeneralizedGumbelSoftmax",
    "GumbelSoftmaxTopK",
    "HardConcrete",
    "InvertibleGaussian",
    "LogisticNormal",
    "PlackettLuce",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "StochasticTimesSmooth",
    "StraightThroughBernoulli",
    "StraightThroughOneHotCategorical",
    "Subset",
]

for _name in __all__:
    # As they are imported, for pickles and the docs.
    globals()[_name].__module__ = __name__
