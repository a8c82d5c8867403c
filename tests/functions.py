"""Every public function of the law modules, and how to call it: the rows of test_functions.py.

Arrays have the batch shape (2, 3) before the axes of one variable, and values that bfloat16 holds,
so that a narrow call and a wide one are given the same numbers. A new function is one more row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from relaxjax import (
    bernoulli,
    categorical,
    correlated,
    counts,
    gates,
    laplace_bridge,
    simplex,
    subsets,
    top_k,
)

BATCH = (2, 3)
MODULES = (
    bernoulli,
    correlated,
    categorical,
    gates,
    simplex,
    top_k,
    subsets,
    counts,
    laplace_bridge,
)
INF, NAN = np.inf, np.nan


class Row(NamedTuple):
    """A function, and arguments for it by their names.

    Fields:
      function: the public function.
      inputs: the arrays that have a batch: parameters, and the values of a density.
      hyper: real hyperparameters: the defaults of a sampler, and some values of what has none.
        "low" and "high" are the ends of `stretch`.
      shared: arrays without a batch, that all variables have in common.
      static: everything else that is given.
      ints: the inputs that may be integers.
      scalars: the inputs that may be one number for all entries.
      discrete: where a row of the result has no law, all of it is NaN, or -1.
      masked: inputs with infinite entries, where the value is finite and the gradient exactly 0.
      lawless: inputs of one variable for which there is no law: the result is NaN.
      log_prob: the function that takes the result as its first input, and has the same parameters.
      draws: inputs of one variable whose draws must have a finite log_prob.
      far: the other inputs beside extreme parameters, where not these.
    """

    function: Callable[..., Any]
    inputs: dict[str, np.ndarray]
    hyper: dict[str, float] = {}
    shared: dict[str, np.ndarray] = {}
    static: dict[str, Any] = {}
    ints: tuple[str, ...] = ()
    scalars: tuple[str, ...] = ()
    discrete: bool = False
    masked: dict[str, np.ndarray] | None = None
    lawless: tuple[dict[str, Any], ...] = ()
    log_prob: Callable[..., Any] | None = None
    draws: dict[str, Any] = {}
    far: dict[str, np.ndarray] = {}

    @property
    def name(self):
        return f"{self.function.__module__.split('.')[-1]}/{self.function.__name__}"

    @property
    def takes_key(self):
        return "key" in self.function.__code__.co_varnames[:1]

    @property
    def has_defaults(self):
        return bool(self.function.__kwdefaults__)

    def __call__(self, inputs, hyper, key=None, **rest):
        """The function of these arrays; one of `hyper` that is left out is not given."""
        hyper = dict(hyper)
        if "low" in hyper:
            hyper["stretch"] = hyper.pop("low"), hyper.pop("high")
        keys = {"key": key} if self.takes_key else {}
        return self.function(**keys, **inputs, **hyper, **self.static, **rest)


# ------------------------------------------------------------------------------------- the arrays

RNG = np.random.default_rng(0)


def eighths(*shape):
    """From -2 to 2."""
    return RNG.integers(-16, 17, (*BATCH, *shape)) / 8


def at(x, index, value):
    """x with some of its entries replaced, the same of every variable or of all of them."""
    x = np.array(x)
    x[index] = value
    return x


def rows(*points):
    """Points of the simplex or of another set, one for each variable."""
    return np.array([points[i % len(points)] for i in range(6)], float).reshape(*BATCH, -1)


B, B2 = eighths(), eighths()
C, C2 = eighths(4), eighths(4)
N, N2 = eighths(5), eighths(5)
PAIR = eighths(2)
M, M2 = eighths(3), eighths(3)
BIT = np.array([[0.0, 1, 1], [1, 0, 0]])
ONE_HOT = rows([1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0])
TWO_HOT = rows([1, 0, 0, 0, 1], [0, 0, 1, 1, 0])
ORDER = np.array([[[0, 4], [2, 3], [4, 0]], [[3, 2], [2, 0], [0, 3]]])
UNIT = np.array([[1.0, 4, 6], [8, 11, 15]]) / 16
ENDS = np.array([[0.0, 4, 16], [8, 0, 15]]) / 16
SIMPLEX = rows([1, 2, 5, 8], [8, 5, 2, 1], [3, 3, 9, 1]) / 16
FACTOR = np.array([[1, 0], [153 / 256, 205 / 256]])  # rows of norm 0.9992
POSITIVE = RNG.integers(2, 25, (2, *BATCH, 4)) / 8
# Masks: a class of every other variable, a bit of either kind, two items of five.
SURE = at(at(B, (0, 1), -INF), (1, 2), INF)
SECOND = (slice(None), slice(None, None, 2), 1)
MASK = at(C, SECOND, -INF)
TWO = (slice(None), slice(None, None, 2), [1, 2])
FEWER = at(N, TWO, -INF)
# Rows without a law.
CLASS = tuple(
    dict(logits=row) for row in ([NAN, 0, 0, 0], [-INF] * 4, [INF, 0, 0, 0], [-INF, 0, 0, INF])
)
ITEM = tuple(
    dict(logits=row)
    for row in ([0, 0, NAN, 0, 0], [-INF, -INF, -INF, 0, -INF], [0, 0, 0, 0, INF], [-INF] * 5)
)
VALUE = tuple({"log_probs": row["logits"]} for row in CLASS)
WIDE = np.linspace(-20, 20, 41)  # log-odds of bits whose draws are rounded to 0 and 1
CLASSES = dict(logits=np.array([[5.0, -3, 0.125, -INF], [0, 0, 20, 1]]))
T = dict(temperature=0.5)
IGR, LN = dict(scale=1.0, temperature=1.0, offset=1.0), dict(scale=1.0, temperature=1.0)
STRETCH = dict(low=-0.1, high=1.1)
HARD = dict(temperature=2 / 3) | STRETCH


# --------------------------------------------------------------------------------------- the rows


def _of(logits, masked, draws, **shared):
    """Rows of one law, by what they share."""

    def row(function, hyper={}, **changes):  # noqa: B006
        fields = dict(inputs=dict(logits=logits), masked=dict(logits=masked), draws=draws)
        return Row(function, hyper=hyper, **fields | shared | changes)

    return row


_bit = _of(B, SURE, dict(logits=WIDE))
_class = _of(C, MASK, CLASSES, lawless=CLASS)
_subset = _of(N, FEWER, {}, static=dict(k=2), lawless=ITEM)
_pair = dict(inputs=dict(logits=PAIR), shared=dict(correlation_tril=FACTOR))
_gate = dict(inputs=dict(mean=B), masked=dict(mean=SURE))


def _two(q, p, masked_q, masked_p, name="logits"):
    """Inputs of a KL divergence, and masked ones."""
    names = f"{name}_q", f"{name}_p"
    return dict(
        inputs=dict(zip(names, (q, p), strict=True)),
        masked=dict(zip(names, (masked_q, masked_p), strict=True)),
    )


ROWS = [
    # ---------------------------------------------------------------------------------- one bit
    _bit(bernoulli.sample, discrete=True, log_prob=bernoulli.log_prob),
    _bit(
        bernoulli.log_prob,
        inputs=dict(x=BIT, logits=B),
        masked=dict(x=np.where(np.isinf(SURE), SURE > 0, BIT), logits=SURE),
        ints=("x",),
    ),
    _bit(bernoulli.mean),
    _bit(bernoulli.entropy),
    _bit(bernoulli.kl, **_two(B, B2, SURE, np.where(SURE == -INF, SURE, B2))),
    _bit(bernoulli.concrete, T, log_prob=bernoulli.concrete_log_prob),
    _bit(bernoulli.concrete_log_prob, T, inputs=dict(z=UNIT, logits=B), masked=None),
    _bit(
        bernoulli.logit_concrete,
        T,
        log_prob=bernoulli.logit_concrete_log_prob,
    ),
    _bit(bernoulli.logit_concrete_log_prob, T, inputs=dict(y=B2, logits=B), masked=None),
    _bit(bernoulli.concrete_kl, **_two(B, B2, SURE, np.where(np.isinf(SURE), SURE, B2))),
    _bit(bernoulli.straight_through, discrete=True),
    _bit(bernoulli.zgr, discrete=True),
    _bit(bernoulli.straight_through_concrete, T, discrete=True),
    _bit(
        bernoulli.gumbel_rao,
        T,
        static=dict(num_noise=3),
        discrete=True,
    ),
    _bit(
        bernoulli.stochastic_times_smooth,
        log_prob=bernoulli.stochastic_times_smooth_log_prob,
    ),
    _bit(
        bernoulli.stochastic_times_smooth_log_prob,
        inputs=dict(z=at(0 * B, (1, 2), 1), logits=at(B, (1, 2), 80)),
        masked=dict(z=np.where(SURE == INF, 1.0, 0), logits=SURE),
        far=dict(z=0 * B),
    ),
    # --------------------------------------------------------------------------- bits that depend
    Row(
        correlated.concrete,
        **_pair,
        hyper=T,
        masked=dict(logits=at(at(PAIR, (0, 1, 0), -INF), (1, 2, 1), INF)),
        log_prob=correlated.concrete_log_prob,
        draws=dict(logits=np.linspace(-20, 20, 80).reshape(40, 2)),
    ),
    Row(
        correlated.concrete_log_prob,
        inputs=dict(z=np.stack([UNIT, UNIT[::-1]], -1), logits=PAIR),
        scalars=("z",),
        hyper=T,
        shared=_pair["shared"],
    ),
    Row(correlated.concrete_and_log_prob, **_pair, hyper=T),
    Row(
        correlated.straight_through,
        **_pair,
        hyper=T,
        masked=dict(logits=at(at(PAIR, (0, 1, 0), -INF), (1, 2, 1), INF)),
    ),
    # ------------------------------------------------------------------------------- one of C
    _class(categorical.sample, discrete=True, log_prob=categorical.log_prob),
    _class(
        categorical.log_prob,
        inputs=dict(x=ONE_HOT, logits=C),
        masked=dict(x=ONE_HOT, logits=MASK),
        ints=("x",),
    ),
    _class(categorical.mean),
    _class(categorical.entropy),
    _class(
        categorical.kl,
        **_two(C, C2, MASK, at(C2, (slice(None), 0, 1), -INF)),
        lawless=tuple(dict(logits_q=row["logits"]) for row in CLASS)
        + tuple(dict(logits_p=row["logits"]) for row in CLASS),
    ),
    _class(categorical.gumbel_softmax, T, log_prob=categorical.gumbel_softmax_log_prob),
    _class(
        categorical.gumbel_softmax_log_prob,
        T,
        inputs=dict(z=SIMPLEX, logits=C),
        masked=dict(z=at(SIMPLEX, SECOND, 0), logits=MASK),
    ),
    _class(categorical.log_gumbel_softmax, T, log_prob=categorical.log_gumbel_softmax_log_prob),
    _class(
        categorical.log_gumbel_softmax_log_prob,
        T,
        inputs=dict(log_z=np.round(8 * np.log(SIMPLEX)) / 8, logits=C),
        masked=dict(log_z=at(np.round(8 * np.log(SIMPLEX)) / 8, SECOND, -INF), logits=MASK),
    ),
    _class(
        categorical.straight_through,
        dict(temperature=1.0),
        discrete=True,
    ),
    _class(
        categorical.straight_through_gumbel_softmax,
        T,
        discrete=True,
    ),
    _class(
        categorical.decoupled_straight_through,
        dict(forward_temperature=1.0, backward_temperature=1.0),
        discrete=True,
    ),
    _class(
        categorical.gapped_straight_through,
        dict(temperature=1.0, gap=1.0),
        discrete=True,
    ),
    _class(categorical.reinmax, dict(temperature=1.0), discrete=True),
    _class(categorical.zgr, discrete=True),
    _class(
        categorical.gumbel_rao,
        T,
        static=dict(num_noise=3),
        discrete=True,
    ),
    # ---------------------------------------------------------------------------------- gates
    Row(
        gates.gaussian,
        **_gate,
        hyper=dict(scale=0.5),
        log_prob=gates.gaussian_log_prob,
        draws=dict(mean=np.linspace(-0.01, 1.01, 103)),
    ),
    Row(gates.gaussian_deterministic, **_gate),
    Row(gates.gaussian_active_probability, **_gate, hyper=dict(scale=0.5)),
    Row(gates.gaussian_log_prob, inputs=dict(z=ENDS, mean=B), hyper=dict(scale=0.5)),
    Row(gates.gaussian_mean, **_gate, hyper=dict(scale=0.5)),
    Row(gates.gaussian_variance, **_gate, hyper=dict(scale=0.5)),
    Row(gates.gaussian_entropy, **_gate, hyper=dict(scale=0.5)),
    Row(
        gates.gaussian_kl,
        inputs=dict(mean_q=B, mean_p=B2),
        hyper=dict(scale_q=0.5, scale_p=0.75),
    ),
    _bit(
        gates.hard_concrete,
        HARD,
        log_prob=gates.hard_concrete_log_prob,
        draws=dict(logits=np.linspace(-5, 5, 101)),
    ),
    _bit(gates.hard_concrete_deterministic, STRETCH),
    _bit(gates.hard_concrete_active_probability, HARD),
    _bit(gates.hard_concrete_log_prob, HARD, inputs=dict(z=ENDS, logits=B), masked=None),
    # -------------------------------------------------------------- Gaussians on the simplex
    Row(
        simplex.invertible_gaussian,
        inputs=dict(mean=M),
        hyper=IGR,
        log_prob=simplex.invertible_gaussian_log_prob,
        draws=dict(mean=np.array([[0.5, -0.25, 0]])),
    ),
    Row(
        simplex.invertible_gaussian_log_prob,
        inputs=dict(z=SIMPLEX, mean=M),
        hyper=IGR,
    ),
    Row(simplex.invertible_gaussian_and_log_prob, inputs=dict(mean=M), hyper=IGR),
    Row(
        simplex.invertible_gaussian_kl,
        inputs=dict(mean_q=M, mean_p=M2),
        hyper=dict(scale_q=0.5, scale_p=0.75),
    ),
    Row(
        simplex.logistic_normal,
        inputs=dict(mean=C),
        hyper=LN,
        masked=dict(mean=MASK),
        log_prob=simplex.logistic_normal_log_prob,
        draws=dict(mean=np.array([[0.5, -0.25, 0, -INF]])),
    ),
    Row(
        simplex.logistic_normal_log_prob,
        inputs=dict(z=SIMPLEX, mean=C),
        hyper=LN,
        masked=dict(z=at(SIMPLEX, SECOND, 0), mean=MASK),
    ),
    Row(
        simplex.logistic_normal_and_log_prob,
        inputs=dict(mean=C),
        hyper=LN,
        masked=dict(mean=MASK),
    ),
    Row(
        simplex.logistic_normal_kl,
        inputs=dict(mean_q=C, mean_p=C2),
        hyper=dict(scale_q=0.5, scale_p=0.75),
    ),
    # ----------------------------------------------------------------------- k without replacement
    _subset(top_k.sample, discrete=True, log_prob=top_k.log_prob),
    _subset(
        top_k.log_prob,
        inputs=dict(indices=ORDER, logits=N),
        masked=dict(indices=ORDER, logits=at(N, (slice(None), slice(None, None, 2), 1), -INF)),
        static={},
    ),
    _subset(
        top_k.log_prob_of_set,
        inputs=dict(x=TWO_HOT, logits=N),
        masked=dict(x=TWO_HOT, logits=at(N, (slice(None), slice(None, None, 2), 1), -INF)),
        ints=("x",),
    ),
    _subset(top_k.relaxed, T),
    _subset(top_k.straight_through, T, discrete=True, log_prob=top_k.log_prob_of_set),
    # ------------------------------------------------------------------------------ k of n bits
    _subset(subsets.sample, discrete=True, log_prob=subsets.log_prob),
    _subset(
        subsets.log_prob,
        inputs=dict(x=TWO_HOT, logits=N),
        masked=dict(x=TWO_HOT, logits=at(N, (slice(None), slice(None, None, 2), 1), -INF)),
        ints=("x",),
    ),
    _subset(subsets.mean),
    _subset(subsets.entropy),
    _subset(
        subsets.kl,
        **_two(N, N2, FEWER, at(N2, (slice(None), 0, [1, 2]), -INF)),
        lawless=tuple(dict(logits_q=row["logits"]) for row in ITEM)
        + tuple(dict(logits_p=row["logits"]) for row in ITEM),
    ),
    _subset(subsets.simple, discrete=True),
    _subset(subsets.zgr, discrete=True),
    # -------------------------------------------------------------------------------- counts
    Row(
        counts.generalized_gumbel_softmax,
        inputs=dict(log_probs=C, values=C2),
        hyper=T,
        masked=dict(log_probs=MASK, values=C2),
        lawless=VALUE,
    ),
    Row(
        counts.log_prob_of_value,
        inputs=dict(x=C2[..., 2], log_probs=C, values=C2),
        masked=dict(x=C2[..., 2], log_probs=MASK, values=at(C2, SECOND, 7)),
        lawless=VALUE,
        ints=("values",),
    ),
    Row(counts.poisson, inputs=dict(log_rate=B), hyper=T, static=dict(truncation=9)),
    Row(counts.geometric, inputs=dict(logits=B), hyper=T, static=dict(truncation=9)),
    # --------------------------------------------------------------------- the Laplace bridge
    Row(laplace_bridge.to_gaussian, inputs=dict(concentration=POSITIVE[0])),
    Row(laplace_bridge.covariance, inputs=dict(concentration=POSITIVE[0])),
    Row(
        laplace_bridge.to_dirichlet,
        inputs=dict(mean=C, variance=POSITIVE[1]),
        scalars=("variance",),
        far=dict(mean=150 * C),  # exp(600) fits float64
    ),
    Row(laplace_bridge.project, inputs=dict(mean=C, variance=POSITIVE[1]), scalars=("variance",)),
]
