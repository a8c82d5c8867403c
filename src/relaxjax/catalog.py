"""One table of every estimator, which the tests, the docs, the benchmarks and the example read."""

import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from relaxjax import _numerics, bernoulli, categorical
from relaxjax.families import Family


class Estimator(NamedTuple):
    """A row of the catalog.

    Fields:
      estimate: (key, f, logits, **hyperparameters) -> scalar, whose value estimates E[f] and whose
        gradient in logits is the estimator. f takes one whole sample, shaped as logits, and returns
        a scalar; batch over data with jax.vmap.
      family: the discrete law, or None where there is none.
      kind: "pathwise" (the sample carries the gradient) or "score" (the loss does).
      hyperparameters: their defaults.
      unbiased: whether the gradient is unbiased for E[f] under the discrete law.
      discrete_forward: whether f sees samples of the discrete law itself.
      evaluations: (shape of logits, hyperparameters) -> calls of f.
      aliases: other names in the literature.
      reference: the source.
    """

    estimate: Callable[..., jax.Array]
    family: Family | None
    kind: str
    hyperparameters: Mapping[str, Any]
    unbiased: bool
    discrete_forward: bool
    evaluations: Callable[[tuple[int, ...], Mapping[str, Any]], int]
    aliases: tuple[str, ...]
    reference: str


def _pathwise(sampler, family, *, discrete_forward, aliases=(), reference, **hyperparameters):
    def estimate(key, f, logits, **hyperparameters):
        return _numerics.scalar(f(sampler(key, logits, **hyperparameters)))

    return Estimator(
        estimate=estimate,
        family=family,
        kind="pathwise",
        hyperparameters=hyperparameters,
        unbiased=False,
        discrete_forward=discrete_forward,
        evaluations=lambda shape, hyperparameters: 1,
        aliases=aliases,
        reference=reference,
    )


_relaxed_bit = functools.partial(_pathwise, family=bernoulli.family, discrete_forward=False)
_hard_bit = functools.partial(_pathwise, family=bernoulli.family, discrete_forward=True)
_relaxed_class = functools.partial(_pathwise, family=categorical.family, discrete_forward=False)
_hard_class = functools.partial(_pathwise, family=categorical.family, discrete_forward=True)

_CONCRETE = "Maddison et al. 2017, arXiv:1611.00712; Jang et al. 2017, arXiv:1611.01144"
_STRAIGHT_THROUGH = "Bengio, Leonard, Courville 2013, arXiv:1308.3432"
_JANG = "Jang et al. 2017, arXiv:1611.01144"
_ZGR = "Shekhovtsov 2023, Cold analysis of Rao-Blackwellized straight-through Gumbel-softmax"
_GUMBEL_RAO = "Paulus, Maddison, Krause 2021, arXiv:2010.04838"

ESTIMATORS: dict[str, Estimator] = {
    "bernoulli/concrete": _relaxed_bit(
        bernoulli.concrete,
        temperature=0.5,
        aliases=("Gumbel-sigmoid", "binary Concrete", "BinConcrete", "relaxed Bernoulli"),
        reference=_CONCRETE,
    ),
    "bernoulli/logit_concrete": _relaxed_bit(
        bernoulli.logit_concrete,
        temperature=0.5,
        aliases=("logistic reparameterization",),
        reference="Maddison et al. 2017, arXiv:1611.00712, appendix C.3",
    ),
    "bernoulli/straight_through": _hard_bit(
        bernoulli.straight_through, aliases=("STE",), reference=_STRAIGHT_THROUGH
    ),
    "bernoulli/straight_through_concrete": _hard_bit(
        bernoulli.straight_through_concrete,
        temperature=0.5,
        aliases=("straight-through Gumbel-sigmoid", "hard Gumbel-sigmoid"),
        reference=_JANG,
    ),
    "bernoulli/zgr": _hard_bit(bernoulli.zgr, aliases=("DARN(1/2)",), reference=_ZGR),
    "bernoulli/gumbel_rao": _hard_bit(
        bernoulli.gumbel_rao,
        temperature=0.5,
        num_noise=10,
        aliases=("GR-MC",),
        reference=_GUMBEL_RAO,
    ),
    "bernoulli/stochastic_times_smooth": _relaxed_bit(
        bernoulli.stochastic_times_smooth, aliases=("STS",), reference=_STRAIGHT_THROUGH
    ),
    "categorical/gumbel_softmax": _relaxed_class(
        categorical.gumbel_softmax,
        temperature=0.5,
        aliases=("Concrete", "relaxed one-hot categorical"),
        reference=_CONCRETE,
    ),
    "categorical/log_gumbel_softmax": _relaxed_class(
        categorical.log_gumbel_softmax,
        temperature=0.5,
        aliases=("ExpConcrete", "ExpRelaxedOneHotCategorical"),
        reference="Maddison et al. 2017, arXiv:1611.00712, appendix C.3",
    ),
    "categorical/straight_through": _hard_class(
        categorical.straight_through, temperature=1.0, aliases=("STE",), reference=_STRAIGHT_THROUGH
    ),
    "categorical/straight_through_gumbel_softmax": _hard_class(
        categorical.straight_through_gumbel_softmax,
        temperature=0.5,
        aliases=("STGS", "hard Gumbel-softmax"),
        reference=_JANG,
    ),
    "categorical/decoupled_straight_through": _hard_class(
        categorical.decoupled_straight_through,
        forward_temperature=1.0,
        backward_temperature=1.0,
        aliases=("decoupled ST-GS",),
        reference="Shah et al. 2024, arXiv:2410.13331v2",
    ),
    "categorical/gapped_straight_through": _hard_class(
        categorical.gapped_straight_through,
        temperature=1.0,
        gap=1.0,
        aliases=("GST",),
        reference="Fan et al. 2022, arXiv:2206.07235",
    ),
    "categorical/reinmax": _hard_class(
        categorical.reinmax,
        temperature=1.0,
        aliases=("second-order straight-through",),
        reference="Liu et al. 2023, arXiv:2304.08612",
    ),
    "categorical/zgr": _hard_class(categorical.zgr, aliases=("GR-0",), reference=_ZGR),
    "categorical/gumbel_rao": _hard_class(
        categorical.gumbel_rao,
        temperature=0.5,
        num_noise=10,
        aliases=("GR-MC",),
        reference=_GUMBEL_RAO,
    ),
}


def estimator(name, **hyperparameters):
    """The estimator of that name, with some of its hyperparameters set.

    Args:
      name: a key of `catalog.ESTIMATORS`, such as "categorical/reinmax".
      **hyperparameters: replace the row's defaults; real ones may be traced.
    Returns (key, f, logits) -> scalar. The value estimates E[f] and the gradient in logits is the
      estimator; the gradient in whatever f closes over is the ordinary one. f takes one whole
      sample, shaped as logits, and returns a scalar.
    Errors: ValueError for an unknown name and TypeError for an unknown hyperparameter, each with
      the nearest valid names; TypeError, when called, where f does not return a float scalar.

    >>> import jax, jax.numpy as jnp
    >>> estimate = estimator("categorical/zgr")
    >>> loss = lambda logits: estimate(jax.random.key(0), lambda z: z @ jnp.arange(3.0), logits)
    >>> jax.grad(loss)(jnp.zeros(3)).shape
    (3,)
    """
    if name not in ESTIMATORS:
        raise ValueError(f"name: got {name!r}, need {_nearest(str(name))}")
    row = ESTIMATORS[name]
    for given in hyperparameters:
        if given not in row.hyperparameters:
            need = ", ".join(row.hyperparameters) or "none: it has no hyperparameters"
            raise TypeError(f"{given}: got it for {name}, need {need}")
    return functools.partial(row.estimate, **{**row.hyperparameters, **hyperparameters})


def _nearest(name):
    """The rows that name may have meant, by their own names or by another in the literature."""
    spelled: dict[str, list[str]] = {}
    for key, row in ESTIMATORS.items():
        for spelling in (key, key.split("/")[1], *row.aliases):
            spelled.setdefault(spelling.lower(), []).append(key)
    close = difflib.get_close_matches(name.lower(), spelled, n=3)
    keys = dict.fromkeys(key for spelling in close for key in spelled[spelling])
    return "one of " + ", ".join(keys or ESTIMATORS)
