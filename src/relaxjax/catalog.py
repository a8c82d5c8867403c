"""One table of every estimator, which the tests, the docs, the benchmarks and the example read."""

import difflib
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from relaxjax import (
    _arguments,
    _numerics,
    bernoulli,
    categorical,
    control_variates,
    counts,
    gates,
    score,
    simplex,
    subsets,
    top_k,
)
from relaxjax.families import Family


class Estimator(NamedTuple):
    """A row of the catalog.

    Fields:
      estimate: (key, f, logits, **hyperparameters) -> scalar, whose value estimates E[f] and whose
        gradient in logits is the estimator. logits are the law's parameter, also where it is called
        mean or log_rate. f takes one whole sample and returns a scalar; batch over data with
        jax.vmap.
      family: the discrete law, for subsets the function of k that gives it; None where the law is
        not discrete or has no Family (top_k). That of correlated bits is the law of the default,
        no correlation.
      kind: "pathwise" (the sample carries the gradient) or "score" (the loss does).
      hyperparameters: their defaults; None is filled from the shape of logits.
      unbiased: whether the gradient is unbiased for E[f] under the discrete law.
      discrete_forward: whether f sees samples of the discrete law itself.
      evaluations: (shape of logits, hyperparameters) -> calls of f.
      aliases: other names in the literature.
      reference: the source.
    """

    estimate: Callable[..., jax.Array]
    family: Family | Callable[[int], Family] | None
    kind: str
    hyperparameters: Mapping[str, Any]
    unbiased: bool
    discrete_forward: bool
    evaluations: Callable[[tuple[int, ...], Mapping[str, Any]], int]
    aliases: tuple[str, ...]
    reference: str


# ------------------------------------------------------------------------------------ pathwise


def _pathwise(
    sampler, family=None, *, discrete_forward=False, aliases=(), reference, **hyperparameters
):
    def estimate(key, f, logits, **hyperparameters):
        return _arguments.scalar(f(sampler(key, logits, **hyperparameters)))

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


def _uncorrelated(sampler):
    def sample(key, logits, *, correlation_tril, **hyperparameters):
        if correlation_tril is None:
            logits = _arguments.floats("logits", logits, event_ndim=1)
            correlation_tril = jnp.eye(logits.shape[-1], dtype=_numerics.widen(logits).dtype)
        return sampler(key, logits, correlation_tril, **hyperparameters)

    return sample


def _values(key, logits, *, values, **hyperparameters):
    if values is None:
        logits = _arguments.floats("log_probs", logits, event_ndim=1)
        values = jnp.arange(logits.shape[-1], dtype=_numerics.widen(logits).dtype)
    return counts.generalized_gumbel_softmax(key, logits, values, **hyperparameters)


_relaxed_bit = functools.partial(_pathwise, family=bernoulli.family)
_hard_bit = functools.partial(_pathwise, family=bernoulli.family, discrete_forward=True)
_relaxed_class = functools.partial(_pathwise, family=categorical.family)
_hard_class = functools.partial(_pathwise, family=categorical.family, discrete_forward=True)
_hard_subset = functools.partial(_pathwise, family=subsets.family, discrete_forward=True)

_CONCRETE = "Maddison et al. 2017, arXiv:1611.00712; Jang et al. 2017, arXiv:1611.01144"
_STRAIGHT_THROUGH = "Bengio, Leonard, Courville 2013, arXiv:1308.3432"
_JANG = "Jang et al. 2017, arXiv:1611.01144"
_ZGR = "Shekhovtsov 2023, Cold analysis of Rao-Blackwellized straight-through Gumbel-softmax"
_GUMBEL_RAO = "Paulus, Maddison, Krause 2021, arXiv:2010.04838"
_COPULA = "Lee et al. 2022, Self-supervision enhanced feature selection with correlated gates"
_TOP_K = "Xie, Ermon 2019, arXiv:1901.10517"
_COUNTS = "Joo et al. 2020, arXiv:2003.01847"

_PATHWISE: dict[str, Estimator] = {
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
    "bernoulli/correlated_concrete": _relaxed_bit(
        _uncorrelated(bernoulli.correlated_concrete),
        correlation_tril=None,
        temperature=0.5,
        aliases=("Gaussian copula", "correlated relaxed Bernoulli"),
        reference=_COPULA,
    ),
    "bernoulli/correlated_straight_through": _hard_bit(
        _uncorrelated(bernoulli.correlated_straight_through),
        correlation_tril=None,
        temperature=0.5,
        aliases=("straight-through Gaussian copula",),
        reference=_COPULA,
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
    "gates/gaussian": _pathwise(
        gates.gaussian,
        scale=0.5,
        aliases=("STG", "stochastic gates", "Gaussian relaxed Bernoulli"),
        reference="Yamada et al. 2020, arXiv:1810.04247",
    ),
    "gates/hard_concrete": _pathwise(
        gates.hard_concrete,
        temperature=2 / 3,
        stretch=(-0.1, 1.1),
        aliases=("L0 gates",),
        reference="Louizos, Welling, Kingma 2018, arXiv:1712.01312",
    ),
    "simplex/invertible_gaussian": _pathwise(
        simplex.invertible_gaussian,
        scale=1.0,
        temperature=1.0,
        offset=1.0,
        aliases=("IGR",),
        reference="Potapczynski, Loaiza-Ganem, Cunningham 2020, arXiv:1912.09588",
    ),
    "simplex/logistic_normal": _pathwise(
        simplex.logistic_normal,
        scale=1.0,
        temperature=1.0,
        aliases=("softmax Gaussian",),
        reference="Atchison, Shen 1980, Logistic-normal distributions",
    ),
    "top_k/relaxed": _pathwise(
        top_k.relaxed,
        k=2,
        temperature=0.5,
        aliases=("Gumbel top-k", "relaxed subset sampling", "SubsetOperator"),
        reference=_TOP_K,
    ),
    "top_k/straight_through": _pathwise(
        top_k.straight_through,
        k=2,
        temperature=0.5,
        discrete_forward=True,
        aliases=("straight-through Gumbel top-k",),
        reference=_TOP_K,
    ),
    "subsets/simple": _hard_subset(
        subsets.simple,
        k=2,
        aliases=("SIMPLE",),
        reference="Ahmed, Zeng, Niepert, Van den Broeck 2023, arXiv:2210.01941",
    ),
    "subsets/zgr": _hard_subset(subsets.zgr, k=2, reference="relaxjax, after " + _ZGR),
    "counts/generalized_gumbel_softmax": _pathwise(
        _values, values=None, temperature=0.5, aliases=("GenGS",), reference=_COUNTS
    ),
    "counts/poisson": _pathwise(counts.poisson, truncation=20, temperature=0.5, reference=_COUNTS),
    "counts/geometric": _pathwise(
        counts.geometric, truncation=20, temperature=0.5, reference=_COUNTS
    ),
}

# --------------------------------------------------------------------------------------- score

_FAMILIES = {
    "bernoulli": bernoulli.family,
    "categorical": categorical.family,
    "subsets": subsets.family,
}
_ALL, _INDEPENDENT = tuple(_FAMILIES), ("bernoulli", "categorical")


def _score(function, laws, *, evaluations, aliases=(), reference, **hyperparameters):
    """A row for each law of function(key, f, logits, *, family, ...); that of subsets takes k."""

    def row(law):
        family = _FAMILIES[law]

        def of_subsets(key, f, logits, *, k, **hyperparameters):
            return function(key, f, logits, family=subsets.family(k), **hyperparameters)

        has_k = law == "subsets"
        return Estimator(
            estimate=of_subsets if has_k else functools.partial(function, family=family),
            family=family,
            kind="score",
            hyperparameters={"k": 2, **hyperparameters} if has_k else hyperparameters,
            unbiased=True,
            discrete_forward=True,
            evaluations=functools.partial(evaluations, law),
            aliases=aliases,
            reference=reference,
        )

    return {f"{law}/{function.__name__}": row(law) for law in laws}


def _of_one_law(function):
    @functools.wraps(function)
    def estimate(key, f, logits, *, family, **hyperparameters):
        del family
        return function(key, f, logits, **hyperparameters)

    return estimate


@functools.wraps(score.exact)
def _exact(key, f, logits, *, family):
    del key
    return score.exact(f, logits, family=family)


@functools.wraps(control_variates.quadratic)
def _quadratic(key, f, logits, *, linear, **rest):
    linear = jnp.zeros_like(_arguments.floats("logits", logits)) if linear is None else linear
    return control_variates.quadratic(key, f, logits, linear=linear, **rest)


def _tanh_critic(critic_params, z):
    return jnp.sum(jnp.asarray(critic_params, z.dtype) * jnp.tanh(z))


def _states(law, shape, hyperparameters):
    if law == "bernoulli":
        return 2 ** math.prod(shape)
    of_one = math.comb(shape[-1], hyperparameters["k"]) if law == "subsets" else shape[-1]
    return of_one ** math.prod(shape[:-1])


def _neighbors(law, shape, hyperparameters):
    of_one = 1 if law == "bernoulli" else (shape[-1] - 1) / shape[-1]
    return round(math.prod(shape) * of_one)


def _samples(law, shape, hyperparameters):
    return hyperparameters["num_samples"]


_SCORE: dict[str, Estimator] = {
    **_score(
        score.reinforce,
        _ALL,
        num_samples=1,
        baseline=0.0,
        evaluations=_samples,
        aliases=("score function", "likelihood ratio"),
        reference="Williams 1992, Simple statistical gradient-following algorithms",
    ),
    **_score(
        score.rloo,
        _ALL,
        num_samples=2,
        evaluations=_samples,
        aliases=("leave-one-out REINFORCE", "VarGrad"),
        reference="Salimans, Knowles 2014, arXiv:1401.1022; Kool, van Hoof, Welling 2019",
    ),
    **_score(
        score.double_cv,
        _ALL,
        num_samples=2,
        scale=0.5,
        evaluations=_samples,
        aliases=("double control variate",),
        reference="Titsias, Shi 2022, arXiv:2111.05300",
    ),
    **_score(
        score.indecater,
        _INDEPENDENT,
        evaluations=lambda *args: 1 + _neighbors(*args),
        aliases=("IndeCateR", "CatLog", "local expectation gradients"),
        reference="De Smet, Sansone, Zuidberg Dos Martires 2023, arXiv:2311.12569",
    ),
    **_score(
        _of_one_law(score.arm),
        ("bernoulli",),
        evaluations=lambda *args: 2,
        aliases=("augment-REINFORCE-merge",),
        reference="Yin, Zhou 2019, arXiv:1807.11143",
    ),
    **_score(
        _of_one_law(score.disarm),
        ("bernoulli",),
        num_samples=2,
        evaluations=_samples,
        aliases=("U2G",),
        reference="Dong, Mnih, Tucker 2020, arXiv:2006.10680",
    ),
    **_score(
        _of_one_law(score.arms),
        ("bernoulli",),
        num_samples=4,
        evaluations=_samples,
        aliases=("ARMS-D",),
        reference="Dimitriev, Zhou 2021, arXiv:2105.14141",
    ),
    **_score(
        _of_one_law(score.unordered_set),
        ("categorical",),
        num_samples=4,
        evaluations=lambda law, shape, h: min(h["num_samples"], shape[-1]),
        aliases=("unordered set policy gradient",),
        reference="Kool, van Hoof, Welling 2020, arXiv:2002.06043",
    ),
    **_score(
        control_variates.muprop,
        _ALL,
        evaluations=lambda *args: 2,
        aliases=("MuProp",),
        reference="Gu, Levine, Sutskever, Mnih 2016, arXiv:1511.05176",
    ),
    **_score(
        control_variates.rebar,
        _INDEPENDENT,
        temperature=0.5,
        scale=1.0,
        evaluations=lambda *args: 3,
        aliases=("REBAR",),
        reference="Tucker et al. 2017, arXiv:1703.07370",
    ),
    **_score(
        control_variates.relax,
        _INDEPENDENT,
        critic=_tanh_critic,
        critic_params=0.1,
        temperature=0.5,
        evaluations=lambda *args: 1,
        aliases=("RELAX", "LAX"),
        reference="Grathwohl et al. 2018, arXiv:1711.00123",
    ),
    **_score(
        control_variates.rodeo,
        _INDEPENDENT,
        num_samples=3,
        scale=1.0,
        critic=None,
        critic_params=None,
        evaluations=_samples,
        aliases=("RODEO",),
        reference="Shi, Zhou, Hwang, Titsias, Mackey 2022, arXiv:2202.09497",
    ),
    **_score(
        _quadratic,
        _ALL,
        linear=None,
        factors=None,
        num_samples=2,
        evaluations=_samples,
        aliases=("learned quadratic control variate",),
        reference="relaxjax",
    ),
    **_score(
        _exact,
        _ALL,
        evaluations=_states,
        aliases=("enumeration", "marginalization"),
        reference="the definition of E[f]",
    ),
}


def _by_law(rows):
    """The rows of one law together, the laws in the order of their first rows."""
    laws = list(dict.fromkeys(name.split("/")[0] for name in rows))
    return dict(sorted(rows.items(), key=lambda item: laws.index(item[0].split("/")[0])))


ESTIMATORS: dict[str, Estimator] = _by_law(_PATHWISE | _SCORE)


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
    # "categorical/arm" means arm, of whatever law has it.
    close = [name.lower().split("/")[-1], *difflib.get_close_matches(name.lower(), spelled, n=3)]
    keys = dict.fromkeys(key for spelling in close for key in spelled.get(spelling, ()))
    return "one of " + ", ".join(keys or ESTIMATORS)
