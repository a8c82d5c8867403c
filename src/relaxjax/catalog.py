"""One table of every estimator, which the tests, the docs, the benchmarks and the example read.

Start with `estimator`, which gives a row of it by name.
"""

import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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


class _Required:
    """In place of a hyperparameter that has no default."""

    def __repr__(self):
        return "required"

    def __reduce__(self):
        return "REQUIRED"


REQUIRED = _Required()


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Estimator:
    """One estimator of E[f] and of its gradient, with its hyperparameters.

    It is a function (key, f, params) -> scalar, and a pytree whose leaves are its real
    hyperparameters, so that it goes through `jit`, `vmap` and `jax.tree.map` as an argument. Two of
    one name with equal hyperparameters are equal.

    Fields:
      name: its key in `ESTIMATORS`.
      function: what it calls: a sampler, or a function of `score` or `control_variates`.
      kind: "pathwise" (the sample carries the gradient) or "score" (the loss carries it).
      real: hyperparameters that may be traced, by name; REQUIRED where there is no default.
      static: the others: counts, and functions.
      target: whose E[f] its value estimates: that of the "discrete" distribution, of exact bits,
        one-hots or k-hots, or that of the "relaxed" sample of which its docstring tells.
      bias: of the gradient of that E[f], in a line; "none" where it is unbiased.
      discrete_forward: whether f sees samples of the discrete distribution.
      of_family: the discrete `Family`, or for subsets the function of k that gives it; None where
        the distribution is not discrete or has no Family here (top_k).
      calls: of f, a number or (estimator, shape of params) -> number.
      aliases: other names in the literature.
      reference: the source.
    """

    name: str
    function: Callable[..., jax.Array]
    kind: str
    real: Mapping[str, Any]
    static: Mapping[str, Any]
    target: str
    bias: str
    discrete_forward: bool
    of_family: Family | Callable[[int], Family] | None
    calls: int | Callable[..., int]
    aliases: tuple[str, ...]
    reference: str

    def __post_init__(self):
        vars(self)["__doc__"] = self.function.__doc__  # which `help` of an instance shows

    @property
    def law(self):
        """The module of the samplers of its distribution."""
        return self.name.split("/")[0]

    @property
    def method(self):
        """The name of its function."""
        return self.name.split("/")[1]

    @property
    def hyperparameters(self):
        """All of them, by name."""
        return {**self.static, **self.real}

    @property
    def family(self):
        """The discrete `Family`, or None where there is none; that of subsets needs k."""
        if self.of_family is None or isinstance(self.of_family, Family):
            return self.of_family
        return self.of_family(self.given("k"))

    def __call__(self, key, f, params):
        """Estimate E[f(x)].

        Args:
          key: PRNG key.
          f: function of one whole sample, shaped as params, to a float scalar; it may close over
            anything, tracers included. Batch over data with `jax.vmap`.
          params: parameters of the distribution, its logits, mean or log-rate.

        Returns:
          A scalar that estimates E[f(x)], and whose gradient in params is the estimator; the
          gradient in whatever f closes over is the ordinary one.

        Raises:
          TypeError: a hyperparameter without a default has not been set, or f returns no float.
          ValueError: f returns an array that is no scalar.
        """
        given = {name: self.given(name) for name in self.hyperparameters}
        for name, fill in _FILLS.items():
            if name in given and given[name] is None:
                given[name] = fill(params)
        if self.kind == "pathwise":
            return _arguments.scalar(f(self.function(key, params, **given)))
        given.pop("k", None)  # that of the family
        if "family" in inspect.signature(self.function).parameters:
            given["family"] = self.family
        return self.function(key, f, params, **given)

    def given(self, name):
        """The value of a hyperparameter, or the error that it has none."""
        value = self.hyperparameters[name]
        if value is REQUIRED:
            raise TypeError(
                f"{name}: got nothing for {self.name}, need it set, as in "
                f"estimator({self.name!r}, {name}=...)"
            )
        return value

    def evaluations(self, shape):
        """Count the calls of f in one call, for params of that shape."""
        return self.calls if isinstance(self.calls, int) else self.calls(self, shape)

    def replace(self, **hyperparameters):
        """Return the estimator with some hyperparameters set.

        Raises:
          TypeError: it has no hyperparameter of that name; the error gives those that it has.
        """
        for name in hyperparameters:
            if name not in self.hyperparameters:
                need = ", ".join(self.hyperparameters) or "none: it has no hyperparameters"
                raise TypeError(
                    f"{name}: got it for {self.name}, need {need}{_HINTS.get(name, '')}"
                )
        of = lambda own: {**own, **{k: v for k, v in hyperparameters.items() if k in own}}
        return dataclasses.replace(self, real=of(self.real), static=of(self.static))

    def __repr__(self):
        given = [f", {name}={value!r}" for name, value in self.hyperparameters.items()]
        return f"estimator({self.name!r}{''.join(given)})"

    def _key(self):
        leaves, tree = jax.tree.flatten(self.real)
        return (self.name, tuple(self.static.items()), tree), leaves

    def __eq__(self, other):
        same = isinstance(other, Estimator) and self._key()[0] == other._key()[0]
        return same and all(map(np.array_equal, self._key()[1], other._key()[1]))

    def __hash__(self):
        key, leaves = self._key()
        return hash((key, tuple(leaves)))

    def tree_flatten(self):
        return (dict(self.real),), dataclasses.replace(self, real={})

    @classmethod
    def tree_unflatten(cls, aux_data, children):
        return dataclasses.replace(aux_data, real=children[0])


# What None stands for: in the shape of params.
_FILLS = {
    "correlation_tril": lambda params: jnp.eye(
        _arguments.floats("logits", params, event_ndim=1).shape[-1],
        dtype=_numerics.widen(jnp.asarray(params)).dtype,
    ),
    "linear": lambda params: jnp.zeros_like(_arguments.floats("logits", params)),
}
_STATIC = {"k", "truncation", "num_samples", "num_noise", "critic"}
# Of no use to an estimator of f, or filled in by it.
_NO_HYPERPARAMETERS = {"key", "f", "family", "shape"}
# What to write for the words of other libraries.
_HINTS = {
    "tau": "; write temperature",
    "hard": "; write a straight_through row, which is exact forward",
    "probs": "; write params, log(p / (1 - p)) of a bit and log p of a class",
    "sample_shape": "; write jax.vmap over keys",
}


def _hyperparameters(function, *also):
    """The real and the static ones of a function, with their defaults: all its arguments from the
    first one of the distribution on, after `also`."""
    parameters = inspect.signature(function).parameters.values()
    _, *rest = [p for p in parameters if p.name not in _NO_HYPERPARAMETERS]
    found: dict[str, Any] = dict.fromkeys(also, REQUIRED)
    for p in rest:
        filled = None if p.name in _FILLS else REQUIRED
        found[p.name] = filled if p.default is p.empty else p.default
    static = {name: value for name, value in found.items() if name in _STATIC}
    return {name: value for name, value in found.items() if name not in static}, static


# ------------------------------------------------------------------------------------ pathwise


# What a row's name says of its distribution: the module of its sampler.
_FAMILIES: dict[str, Family | Callable[[int], Family]] = {
    "bernoulli": bernoulli.family,
    "correlated": bernoulli.family,  # of the default, which has no correlation
    "categorical": categorical.family,
    "subsets": subsets.family,
}


def _relaxed(sampler, reference, *aliases, bias="none"):
    """The row of a sampler whose E[f] is its own."""
    law, (real, static) = sampler.__module__.split(".")[-1], _hyperparameters(sampler)
    return Estimator(
        name=f"{law}/{sampler.__name__}",
        function=sampler,
        kind="pathwise",
        real=real,
        static=static,
        target="relaxed",
        bias=bias,
        discrete_forward=False,
        of_family=_FAMILIES.get(law),
        calls=1,
        aliases=aliases,
        reference=reference,
    )


def _hard(sampler, bias, reference, *aliases):
    """The row of a sampler of exact bits, one-hots or k-hots."""
    row = _relaxed(sampler, reference, *aliases, bias=bias)
    return dataclasses.replace(row, target="discrete", discrete_forward=True)


_LINEAR = "none for f linear in each variable, second order otherwise"
_QUADRATIC = "none for f quadratic in each variable, third order otherwise"
_ANY = "present even for linear f"
_FALLS = f"{_ANY}; it falls with the temperature"
_AT_1 = f"at temperature 1 {{}}; at another {_ANY}"

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

_PATHWISE = [
    _relaxed(
        bernoulli.concrete,
        _CONCRETE,
        *("Gumbel-sigmoid", "binary Concrete", "BinConcrete", "relaxed Bernoulli"),
    ),
    _relaxed(bernoulli.logit_concrete, _LOG_CONCRETE, "logistic reparameterization"),
    _hard(bernoulli.straight_through, _LINEAR, _STRAIGHT_THROUGH, "STE"),
    _hard(
        bernoulli.straight_through_concrete,
        *(_FALLS, _JANG, "straight-through Gumbel-sigmoid", "hard Gumbel-sigmoid"),
    ),
    _hard(bernoulli.zgr, _QUADRATIC, _ZGR, "DARN(1/2)"),
    _hard(bernoulli.gumbel_rao, _FALLS, _GUMBEL_RAO, "GR-MC"),
    _relaxed(bernoulli.stochastic_times_smooth, _STRAIGHT_THROUGH, "STS", bias=_QUADRATIC),
    _relaxed(correlated.concrete, _COPULA, "Gaussian copula", "correlated relaxed Bernoulli"),
    _hard(correlated.straight_through, _ANY, _COPULA, "straight-through Gaussian copula"),
    _relaxed(categorical.gumbel_softmax, _CONCRETE, "Concrete", "relaxed one-hot categorical"),
    _relaxed(
        categorical.log_gumbel_softmax,
        *(_LOG_CONCRETE, "ExpConcrete", "ExpRelaxedOneHotCategorical"),
    ),
    _hard(categorical.straight_through, _AT_1.format(_LINEAR), _STRAIGHT_THROUGH, "STE"),
    _hard(
        categorical.straight_through_gumbel_softmax,
        *(_FALLS, _JANG, "STGS", "hard Gumbel-softmax"),
    ),
    _hard(
        categorical.decoupled_straight_through,
        f"with equal temperatures {_LINEAR}; otherwise {_ANY}",
        *(_DECOUPLED, "decoupled ST-GS"),
    ),
    _hard(categorical.gapped_straight_through, _ANY, _GAPPED, "GST"),
    _hard(
        categorical.reinmax,
        *(_AT_1.format(_QUADRATIC), _REINMAX, "second-order straight-through"),
    ),
    _hard(categorical.zgr, _QUADRATIC, _ZGR, "GR-0"),
    _hard(categorical.gumbel_rao, _FALLS, _GUMBEL_RAO, "GR-MC"),
    _relaxed(
        gates.gaussian,
        *(_GAUSSIAN_GATE, "STG", "stochastic gates", "Gaussian relaxed Bernoulli"),
    ),
    _relaxed(gates.hard_concrete, _HARD_CONCRETE, "L0 gates"),
    _relaxed(simplex.invertible_gaussian, _INVERTIBLE_GAUSSIAN, "IGR"),
    _relaxed(simplex.logistic_normal, _LOGISTIC_NORMAL, "softmax Gaussian"),
    _relaxed(top_k.relaxed, _TOP_K, "Gumbel top-k", "relaxed subset sampling", "SubsetOperator"),
    _hard(top_k.straight_through, _ANY, _TOP_K, "straight-through Gumbel top-k"),
    _hard(subsets.simple, _LINEAR, _SIMPLE, "SIMPLE"),
    _hard(subsets.zgr, _QUADRATIC, "relaxjax, after " + _ZGR),
    _relaxed(counts.generalized_gumbel_softmax, _COUNTS, "GenGS"),
    _relaxed(counts.poisson, _COUNTS),
    _relaxed(counts.geometric, _COUNTS),
]

# --------------------------------------------------------------------------------------- score


def _score(function, laws, calls, reference, *aliases):
    """A row for each law of function(key, f, params, ...); that of subsets takes k."""
    for law in laws:
        real, static = _hyperparameters(function, *["k"] * (law == "subsets"))
        yield Estimator(
            name=f"{law}/{function.__name__}",
            function=function,
            kind="score",
            real=real,
            static=static,
            target="discrete",
            bias="none",
            discrete_forward=True,
            of_family=_FAMILIES[law],
            calls=calls,
            aliases=aliases,
            reference=reference,
        )


def _states(row, shape):
    if row.law == "bernoulli":
        return 2 ** math.prod(shape)
    of_one = math.comb(shape[-1], row.given("k")) if row.law == "subsets" else shape[-1]
    return of_one ** math.prod(shape[:-1])


def _neighbors_and_itself(row, shape):
    of_one = 1 if row.law == "bernoulli" else (shape[-1] - 1) / shape[-1]
    return 1 + round(math.prod(shape) * of_one)


def _samples(row, shape):
    return row.static["num_samples"]


def _samples_of_one_variable(row, shape):
    return min(row.static["num_samples"], shape[-1])


_BITS, _CLASSES, _INDEPENDENT = ("bernoulli",), ("categorical",), ("bernoulli", "categorical")
_ALL = (*_INDEPENDENT, "subsets")

_REINFORCE = "Williams 1992, Simple statistical gradient-following algorithms"
_RLOO = "Salimans, Knowles 2014, arXiv:1401.1022; Kool, van Hoof, Welling 2019"
_DICE = "Foerster et al. 2018, arXiv:1802.05098; Mao et al. 2019, arXiv:1906.00957"
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

_SCORE = [
    *_score(score.reinforce, _ALL, _samples, _REINFORCE, "score function", "likelihood ratio"),
    *_score(score.rloo, _ALL, _samples, _RLOO, "leave-one-out REINFORCE", "VarGrad"),
    *_score(score.dice, _ALL, _samples, _DICE, "magic box", "higher-order REINFORCE"),
    *_score(score.double_cv, _ALL, _samples, _DOUBLE_CV, "double control variate"),
    *_score(
        score.indecater,
        *(_INDEPENDENT, _neighbors_and_itself, _INDECATER),
        *("IndeCateR", "CatLog", "local expectation gradients"),
    ),
    *_score(score.arm, _BITS, 2, _ARM, "augment-REINFORCE-merge"),
    *_score(score.disarm, _BITS, _samples, _DISARM, "U2G"),
    *_score(score.arms, _BITS, _samples, _ARMS, "ARMS-D"),
    *_score(
        score.unordered_set,
        *(_CLASSES, _samples_of_one_variable, _UNORDERED_SET, "unordered set policy gradient"),
    ),
    *_score(control_variates.muprop, _ALL, 2, _MUPROP, "MuProp"),
    *_score(control_variates.rebar, _INDEPENDENT, 3, _REBAR, "REBAR"),
    *_score(control_variates.relax, _INDEPENDENT, 1, _RELAX, "RELAX", "LAX"),
    *_score(control_variates.rodeo, _INDEPENDENT, _samples, _RODEO, "RODEO"),
    *_score(
        control_variates.quadratic, _ALL, _samples, "relaxjax", "learned quadratic control variate"
    ),
    *_score(score.exact, _ALL, _states, "the definition of E[f]", "enumeration", "marginalization"),
]

# The rows of one law together, and the laws in the order of their first rows.
_LAWS = list(dict.fromkeys(row.law for row in _PATHWISE))
ESTIMATORS: dict[str, Estimator] = {
    row.name: row for row in sorted([*_PATHWISE, *_SCORE], key=lambda row: _LAWS.index(row.law))
}


def estimator(name, **hyperparameters):
    """Return the `Estimator` of that name, with some of its hyperparameters set.

    Args:
      name: a key of `catalog.ESTIMATORS`, such as "categorical/reinmax".
      **hyperparameters: values that replace the row's defaults; real ones may be traced.

    Returns:
      An `Estimator`: a function (key, f, params) -> scalar. The value estimates E[f] and the
      gradient in params is the estimator; the gradient in whatever f closes over is the ordinary
      one. f takes one whole sample, shaped as params, and returns a float scalar.

    Raises:
      ValueError: the name is unknown; the error gives the nearest ones.
      TypeError: a hyperparameter is unknown; the error gives the valid ones.

    >>> import jax, jax.numpy as jnp
    >>> estimate = estimator("categorical/zgr")
    >>> loss = lambda logits: estimate(jax.random.key(0), lambda z: z @ jnp.arange(3.0), logits)
    >>> jax.grad(loss)(jnp.zeros(3)).shape
    (3,)
    """
    if name not in ESTIMATORS:
        raise ValueError(f"name: got {name!r}, need {_nearest(str(name))}")
    return ESTIMATORS[name].replace(**hyperparameters)


def _nearest(name):
    """The rows that name may have meant, by their own names or by others in the literature."""
    spelled: dict[str, list[str]] = {}
    for key, row in ESTIMATORS.items():
        for spelling in (key, row.method, *row.aliases):
            spelled.setdefault(spelling.lower(), []).append(key)
    # "categorical/arm" means arm, whichever law has it.
    close = [name.lower().split("/")[-1], *difflib.get_close_matches(name.lower(), spelled, n=3)]
    keys = dict.fromkeys(key for spelling in close for key in spelled.get(spelling, ()))
    return "one of " + ", ".join(keys or ESTIMATORS)
