"""One table of every estimator, which the tests, the docs, the benchmarks and the example read.

Start with `estimator`, which gives a row of it by name.
"""

import difflib
import functools
import inspect
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
    correlated,
    counts,
    gates,
    score,
    simplex,
    subsets,
    top_k,
)
from relaxjax.families import Family


class Estimator(NamedTuple):
    """One row of the catalog.

    Fields:
      estimate: (key, f, logits, **hyperparameters) -> scalar, whose value estimates E[f] and whose
        gradient in logits is the estimator. logits are the parameter of the distribution, also
        where it is called mean or log_rate. f takes one whole sample and returns a scalar; batch
        over data with jax.vmap.
      family: the discrete `Family`, for subsets the function of k that gives it; None where the
        distribution is not discrete or has no Family here (top_k). That of correlated bits is the
        distribution of the default, which has no correlation.
      kind: "pathwise" (the sample carries the gradient) or "score" (the loss carries it).
      hyperparameters: their defaults; None is filled in from the shape of logits.
      unbiased: whether the gradient is unbiased for E[f] under the discrete distribution.
      discrete_forward: whether f sees samples of the discrete distribution itself.
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


def _defaults(function, *names):
    """The keyword arguments of function that have a default, but for the given names."""
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.default is not p.empty and p.name not in names
    }


def _pathwise(
    sampler, reference, *aliases, family=None, discrete_forward=False, fill=None, **invented
):
    """The name and the row of a sampler.

    Invented are defaults for what the sampler requires; fill, if given, is the sampler with those
    that are None filled in from the shape of logits.
    """
    draw = fill or sampler

    def estimate(key, f, logits, **hyperparameters):
        return _arguments.scalar(f(draw(key, logits, **hyperparameters)))

    row = Estimator(
        estimate=estimate,
        family=family,
        kind="pathwise",
        hyperparameters=invented | _defaults(sampler, "shape"),
        unbiased=False,
        discrete_forward=discrete_forward,
        evaluations=lambda shape, hyperparameters: 1,
        aliases=aliases,
        reference=reference,
    )
    return f"{sampler.__module__.split('.')[-1]}/{sampler.__name__}", row


def _filled(sampler):
    """The sampler of correlated bits, which are uncorrelated where correlation_tril is None."""

    def sample(key, logits, *, correlation_tril, **hyperparameters):
        if correlation_tril is None:
            logits = _arguments.floats("logits", logits, event_ndim=1)
            correlation_tril = jnp.eye(logits.shape[-1], dtype=_numerics.widen(logits).dtype)
        return sampler(key, logits, correlation_tril, **hyperparameters)

    return {"fill": sample, "correlation_tril": None}


def _values(key, logits, *, values, **hyperparameters):
    if values is None:
        logits = _arguments.floats("log_probs", logits, event_ndim=1)
        values = jnp.arange(logits.shape[-1], dtype=_numerics.widen(logits).dtype)
    return counts.generalized_gumbel_softmax(key, logits, values, **hyperparameters)


_bit = functools.partial(_pathwise, family=bernoulli.family)
_hard_bit = functools.partial(_bit, discrete_forward=True)
_class = functools.partial(_pathwise, family=categorical.family)
_hard_class = functools.partial(_class, discrete_forward=True)
_relaxed_subset = functools.partial(_pathwise, k=2)
_hard_subset = functools.partial(_relaxed_subset, family=subsets.family, discrete_forward=True)

_CONCRETE = "Maddison et al. 2017, arXiv:1611.00712; Jang et al. 2017, arXiv:1611.01144"
_LOG_CONCRETE = "Maddison et al. 2017, arXiv:1611.00712, appendix C.3"
_STRAIGHT_THROUGH = "Bengio, Leonard, Courville 2013, arXiv:1308.3432"
_JANG = "Jang et al. 2017, arXiv:1611.01144"
_ZGR = "Shekhovtsov 2023, Cold analysis of Rao-Blackwellized straight-through Gumbel-softmax"
_GUMBEL_RAO = "Paulus, Maddison, Krause 2021, arXiv:2010.04838"
_COPULA = "Lee et al. 2022, Self-supervision enhanced feature selection with correlated gates"
_DECOUPLED = "Shah et al. 2024, arXiv:2410.13331v2"
_GAPPED = "Fan et al. 2022, arXiv:2206.07235"
_REINMAX = "Liu et al. 2023, arXiv:2304.08612"
_GAUSSIAN_GATE = "Yamada et al. 2020, arXiv:1810.04247"
_HARD_CONCRETE = "Louizos, Welling, Kingma 2018, arXiv:1712.01312"
_INVERTIBLE_GAUSSIAN = "Potapczynski, Loaiza-Ganem, Cunningham 2020, arXiv:1912.09588"
_LOGISTIC_NORMAL = "Aitchison, Shen 1980, Logistic-normal distributions"
_TOP_K = "Xie, Ermon 2019, arXiv:1901.10517"
_SIMPLE = "Ahmed, Zeng, Niepert, Van den Broeck 2023, arXiv:2210.01941"
_COUNTS = "Joo et al. 2020, arXiv:2003.01847"

_PATHWISE: dict[str, Estimator] = dict(
    [
        _bit(
            bernoulli.concrete,
            _CONCRETE,
            *("Gumbel-sigmoid", "binary Concrete", "BinConcrete", "relaxed Bernoulli"),
        ),
        _bit(bernoulli.logit_concrete, _LOG_CONCRETE, "logistic reparameterization"),
        _hard_bit(bernoulli.straight_through, _STRAIGHT_THROUGH, "STE"),
        _hard_bit(
            bernoulli.straight_through_concrete,
            _JANG,
            *("straight-through Gumbel-sigmoid", "hard Gumbel-sigmoid"),
        ),
        _hard_bit(bernoulli.zgr, _ZGR, "DARN(1/2)"),
        _hard_bit(bernoulli.gumbel_rao, _GUMBEL_RAO, "GR-MC"),
        _bit(bernoulli.stochastic_times_smooth, _STRAIGHT_THROUGH, "STS"),
        _bit(
            correlated.concrete,
            _COPULA,
            *("Gaussian copula", "correlated relaxed Bernoulli"),
            **_filled(correlated.concrete),
        ),
        _hard_bit(
            correlated.straight_through,
            _COPULA,
            "straight-through Gaussian copula",
            **_filled(correlated.straight_through),
        ),
        _class(categorical.gumbel_softmax, _CONCRETE, "Concrete", "relaxed one-hot categorical"),
        _class(
            categorical.log_gumbel_softmax,
            _LOG_CONCRETE,
            *("ExpConcrete", "ExpRelaxedOneHotCategorical"),
        ),
        _hard_class(categorical.straight_through, _STRAIGHT_THROUGH, "STE"),
        _hard_class(
            categorical.straight_through_gumbel_softmax, _JANG, "STGS", "hard Gumbel-softmax"
        ),
        _hard_class(categorical.decoupled_straight_through, _DECOUPLED, "decoupled ST-GS"),
        _hard_class(categorical.gapped_straight_through, _GAPPED, "GST"),
        _hard_class(categorical.reinmax, _REINMAX, "second-order straight-through"),
        _hard_class(categorical.zgr, _ZGR, "GR-0"),
        _hard_class(categorical.gumbel_rao, _GUMBEL_RAO, "GR-MC"),
        _pathwise(
            gates.gaussian,
            _GAUSSIAN_GATE,
            *("STG", "stochastic gates", "Gaussian relaxed Bernoulli"),
        ),
        _pathwise(gates.hard_concrete, _HARD_CONCRETE, "L0 gates"),
        _pathwise(simplex.invertible_gaussian, _INVERTIBLE_GAUSSIAN, "IGR"),
        _pathwise(simplex.logistic_normal, _LOGISTIC_NORMAL, "softmax Gaussian"),
        _relaxed_subset(
            top_k.relaxed, _TOP_K, "Gumbel top-k", "relaxed subset sampling", "SubsetOperator"
        ),
        _relaxed_subset(
            top_k.straight_through, _TOP_K, "straight-through Gumbel top-k", discrete_forward=True
        ),
        _hard_subset(subsets.simple, _SIMPLE, "SIMPLE"),
        _hard_subset(subsets.zgr, "relaxjax, after " + _ZGR),
        _pathwise(counts.generalized_gumbel_softmax, _COUNTS, "GenGS", fill=_values, values=None),
        _pathwise(counts.poisson, _COUNTS, truncation=20),
        _pathwise(counts.geometric, _COUNTS, truncation=20),
    ]
)

# --------------------------------------------------------------------------------------- score

_FAMILIES = {
    "bernoulli": bernoulli.family,
    "categorical": categorical.family,
    "subsets": subsets.family,
}
_ALL, _INDEPENDENT, _BITS = tuple(_FAMILIES), ("bernoulli", "categorical"), ("bernoulli",)

_REINFORCE = "Williams 1992, Simple statistical gradient-following algorithms"
_RLOO = "Salimans, Knowles 2014, arXiv:1401.1022; Kool, van Hoof, Welling 2019"
_INDECATER = "De Smet, Sansone, Zuidberg Dos Martires 2023, arXiv:2311.12569"
_ARM = "Yin, Zhou 2019, arXiv:1807.11143"
_DISARM = "Dong, Mnih, Tucker 2020, arXiv:2006.10680"
_ARMS = "Dimitriev, Zhou 2021, arXiv:2105.14141"
_UNORDERED_SET = "Kool, van Hoof, Welling 2020, arXiv:2002.06043"
_DOUBLE_CV = "Titsias, Shi 2022, arXiv:2111.05300"
_MUPROP = "Gu, Levine, Sutskever, Mnih 2016, arXiv:1511.05176"
_REBAR = "Tucker et al. 2017, arXiv:1703.07370"
_RELAX = "Grathwohl et al. 2018, arXiv:1711.00123"
_RODEO = "Shi, Zhou, Hwang, Titsias, Mackey 2022, arXiv:2202.09497"


def _score(function, laws, evaluations, reference, *aliases, **invented):
    """A row for each law of function(key, f, logits, *, family, ...); that of subsets takes k."""

    def row(law):
        family = _FAMILIES[law]

        def of_subsets(key, f, logits, *, k, **hyperparameters):
            return function(key, f, logits, family=subsets.family(k), **hyperparameters)

        has_k, takes_family = law == "subsets", "family" in inspect.signature(function).parameters
        of_law = functools.partial(function, family=family) if takes_family else function
        return Estimator(
            estimate=of_subsets if has_k else of_law,
            family=family,
            kind="score",
            hyperparameters=({"k": 2} if has_k else {}) | invented | _defaults(function),
            unbiased=True,
            discrete_forward=True,
            evaluations=functools.partial(evaluations, law),
            aliases=aliases,
            reference=reference,
        )

    return {f"{law}/{function.__name__}": row(law) for law in laws}


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


def _neighbors_and_itself(law, shape, hyperparameters):
    of_one = 1 if law == "bernoulli" else (shape[-1] - 1) / shape[-1]
    return 1 + round(math.prod(shape) * of_one)


def _samples(law, shape, hyperparameters):
    return hyperparameters["num_samples"]


def _samples_of_one_variable(law, shape, hyperparameters):
    return min(hyperparameters["num_samples"], shape[-1])


def _always(calls):
    return lambda law, shape, hyperparameters: calls


_SCORE: dict[str, Estimator] = (
    _score(score.reinforce, _ALL, _samples, _REINFORCE, "score function", "likelihood ratio")
    | _score(score.rloo, _ALL, _samples, _RLOO, "leave-one-out REINFORCE", "VarGrad")
    | _score(score.double_cv, _ALL, _samples, _DOUBLE_CV, "double control variate")
    | _score(
        score.indecater,
        *(_INDEPENDENT, _neighbors_and_itself, _INDECATER),
        *("IndeCateR", "CatLog", "local expectation gradients"),
    )
    | _score(score.arm, _BITS, _always(2), _ARM, "augment-REINFORCE-merge")
    | _score(score.disarm, _BITS, _samples, _DISARM, "U2G")
    | _score(score.arms, _BITS, _samples, _ARMS, "ARMS-D")
    | _score(
        score.unordered_set,
        *(("categorical",), _samples_of_one_variable, _UNORDERED_SET),
        "unordered set policy gradient",
    )
    | _score(control_variates.muprop, _ALL, _always(2), _MUPROP, "MuProp")
    | _score(control_variates.rebar, _INDEPENDENT, _always(3), _REBAR, "REBAR")
    | _score(
        control_variates.relax,
        *(_INDEPENDENT, _always(1), _RELAX, "RELAX", "LAX"),
        critic=_tanh_critic,
        critic_params=0.1,
    )
    | _score(control_variates.rodeo, _INDEPENDENT, _samples, _RODEO, "RODEO")
    | _score(
        _quadratic, _ALL, _samples, "relaxjax", "learned quadratic control variate", linear=None
    )
    | _score(_exact, _ALL, _states, "the definition of E[f]", "enumeration", "marginalization")
)


def _by_law(rows):
    """The rows with those of one law together, and the laws in the order of their first rows."""
    laws = list(dict.fromkeys(name.split("/")[0] for name in rows))
    return dict(sorted(rows.items(), key=lambda item: laws.index(item[0].split("/")[0])))


ESTIMATORS: dict[str, Estimator] = _by_law(_PATHWISE | _SCORE)


def estimator(name, **hyperparameters):
    """Return the estimator of that name, with some of its hyperparameters set.

    Args:
      name: a key of `catalog.ESTIMATORS`, such as "categorical/reinmax".
      **hyperparameters: values that replace the row's defaults; real ones may be traced.

    Returns:
      A function (key, f, logits) -> scalar. The value estimates E[f] and the gradient in logits is
      the estimator; the gradient in whatever f closes over is the ordinary one. f takes one whole
      sample, shaped as logits, and returns a float scalar.

    Raises:
      ValueError: the name is unknown; the error gives the nearest ones. When the estimator is
        called: f returns an array that is no scalar.
      TypeError: a hyperparameter is unknown; the error gives the valid ones. When the estimator is
        called: f returns no float.

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
    """The rows that name may have meant, by their own names or by others in the literature."""
    spelled: dict[str, list[str]] = {}
    for key, row in ESTIMATORS.items():
        for spelling in (key, key.split("/")[1], *row.aliases):
            spelled.setdefault(spelling.lower(), []).append(key)
    # "categorical/arm" means arm, whichever law has it.
    close = [name.lower().split("/")[-1], *difflib.get_close_matches(name.lower(), spelled, n=3)]
    keys = dict.fromkeys(key for spelling in close for key in spelled.get(spelling, ()))
    return "one of " + ", ".join(keys or ESTIMATORS)
