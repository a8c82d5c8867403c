"""The laws as distrax distributions, over the functions of the other modules.

Start with `StraightThroughBernoulli`, `StraightThroughOneHotCategorical` or `Subset` for exact
samples, with `RelaxedBernoulli` or `RelaxedOneHotCategorical` for relaxed ones. It is not imported
by `relaxjax` itself, and needs the extra: pip install 'relaxjax[distrax]'.

Throughout: the constructor takes the parameters, masks, defaults and static integers of the
function that a class names, whose gradients its `sample` has. It broadcasts parameters and real
hyperparameters to one batch shape, stores them as arrays (the hyperparameters in float32 or wider)
and raises TypeError or ValueError that names class and argument, under `jit` too; a bad value in a
jax.Array gives NaN. An instance is a pytree of these arrays: it goes through every transformation
of JAX, its gradient is an instance, and static arguments are part of its structure. `sample`,
`sample_and_log_prob`, `log_prob`, `batch_shape`, `event_shape`, `dtype` and slicing follow distrax;
log_prob broadcasts, and is in the dtype of the first parameter. `sample_and_log_prob` computes the
density from the draw before it is squashed or rounded: finite and exact at every temperature, where
log_prob of a sample that has rounded to the border of its support is only finite. Methods of
distrax that a class does not list have no closed form there and raise NotImplementedError; KL
divergences not listed have none either. `enumerate_support()` of a discrete law is every value of
one variable, (S, *batch_shape, *event_shape), at most 2^20 of them.
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
