"""Each pathwise row of the catalog beside the same draw as JAX users write it without us.

Users' code differentiates the plain formula by autodiff, with our noise where that is what a user
would draw, so that a race measures rules and not generators. A hard draw carries its gradient as
users write it: value + surrogate - stop_gradient(surrogate). A sampler is (key, params,
temperature) -> z, noise (key, shape of params) -> what a draw spends.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import log_softmax, sigmoid, softmax
from jax.scipy.special import log_ndtr

from relaxjax import _noise, subsets
from relaxjax.catalog import ESTIMATORS

K = 5  # of top-k and subsets
TRUNCATION = 15  # of counts: 16 values


def ours(name, k=K):
    """The row's own sampler; where it has no temperature, that is of its gradient, or its scale."""
    sampler, given = ESTIMATORS[name].function, ESTIMATORS[name].hyperparameters
    swept = next((h for h in ("temperature", "backward_temperature", "scale") if h in given), None)

    def sample(key, l, t):
        values = {swept: t, "k": k, "truncation": TRUNCATION}
        if "values" in given:
            values["values"] = jnp.arange(l.shape[-1], dtype=l.dtype)
        if "correlation_tril" in given:
            values["correlation_tril"] = _tril(l.shape[-1])
        return sampler(key, l, **{h: values[h] for h in given if h in values})

    return sample


uniform, logistic, gumbel, normal = (
    functools.partial(generator, dtype=jnp.float32)
    for generator in (jax.random.uniform, _noise.logistic, _noise.gumbel, _noise.normal)
)
one_per_row = lambda key, shape: uniform(key, (*shape[:-1], 1))
one_per_count = lambda key, shape: gumbel(key, (*shape, TRUNCATION + 1))


def correlated(key, shape):
    noise = normal(key, shape) @ _tril(shape[-1]).T
    return log_ndtr(noise) - log_ndtr(-noise)


def _tril(n):
    """Equicorrelated at 1/2."""
    return jnp.linalg.cholesky((jnp.eye(n) + jnp.ones((n, n))) / 2).astype(jnp.float32)


# Users' code.
_carry = lambda hard, soft: hard + (soft - lax.stop_gradient(soft))
_bit = lambda key, p: (uniform(key, p.shape) < lax.stop_gradient(p)).astype(p.dtype)
_class = lambda key, l: _largest(lax.stop_gradient(l + gumbel(key, l.shape)))
straight_through_bit = lambda key, l, t: _carry(_bit(key, sigmoid(l)), sigmoid(l))
straight_through_class = lambda key, l, t: _carry(_class(key, l), softmax(l / t))
gaussian_gate = lambda key, mean, t: jnp.clip(mean + t * normal(key, mean.shape), 0, 1)
# Of a perturbed y, or of the parameters and the values of a count.
_positive = lambda y: (y > 0).astype(y.dtype)
_largest = lambda y: jax.nn.one_hot(jnp.argmax(y, axis=-1), y.shape[-1], dtype=y.dtype)
_stretched = lambda y: jnp.clip(-0.1 + 1.2 * sigmoid(y), 0, 1)
_and_zero = lambda y: softmax(jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, 1)]))
_mean_index = lambda y: jnp.sum(softmax(y) * jnp.arange(y.shape[-1], dtype=y.dtype), axis=-1)
poisson_logits = lambda log_rate, values: values * log_rate[..., None] - lax.lgamma(values + 1)
geometric_logits = lambda l, values: -values * jax.nn.softplus(l)[..., None]
relaxed = lambda noise, squash: lambda key, l, t: squash((l + noise(key, l.shape)) / t)


def thresholded(noise, hard, squash):
    """A hard draw that goes back through the relaxed one of the same noise."""

    def sampler(key, l, t):
        y = (l + noise(key, l.shape)) / t
        return _carry(hard(lax.stop_gradient(y)), squash(y))

    return sampler


def _second_order(key, p, l):
    """A bit of probability p with the gradient |b - p| / 2 in its log-odds l."""
    b = _bit(key, p)
    return _carry(b, lax.stop_gradient(jnp.abs(b - p) / 2) * l)


def stochastic_times_smooth(key, l, t):
    q = jnp.sqrt(sigmoid(l))
    return q * _second_order(key, q, jnp.log(q) - jnp.log1p(-q))


def reinmax(key, l, t):
    d, p = _class(key, l), softmax(l)
    q = lax.stop_gradient((d + softmax(l / t)) / 2)
    # As published: a softmax whose value at these logits is q.
    shifted = softmax(jnp.log(q) - lax.stop_gradient(l) + l)
    return _carry(d, 2 * shifted - p / 2)


def zgr_class(key, l, t):
    d, p = _class(key, l), softmax(l)
    # (J(p) + (d - p) (d - p)^T) / 2: a mean and a score that is weighted by d - p.
    log_q = jnp.sum(d * log_softmax(l), axis=-1, keepdims=True)
    return _carry(d, (p + lax.stop_gradient(d - p) * log_q) / 2)


def gapped(key, l, t):
    d, p = _class(key, l), log_softmax(l)
    top, chosen = (jnp.sum(x, -1, keepdims=True) for x in (jnp.max(p, -1, keepdims=True), d * p))
    up = lax.stop_gradient(top - chosen) * d
    down = lax.stop_gradient(jax.nn.relu(p + 1 - top)) * (1 - d)
    return _carry(d, softmax((l + up - down) / t))


def rao(draw, soft):
    """The mean of soft(key, draw, logits, temperature) over ten noises given the draw."""

    def sampler(key, l, t):
        d = draw(key, l)
        keys = jax.random.split(jax.random.fold_in(key, 1), 10)
        return _carry(d, jnp.mean(jax.vmap(lambda key: soft(key, d, l, t))(keys), axis=0))

    return sampler


def _soft_bit(key, b, l, t):
    v = jax.random.uniform(key, l.shape, l.dtype, minval=1e-7, maxval=1 - 1e-7)
    p = sigmoid(l)
    u = jnp.clip(jnp.where(b == 1, 1 - p * (1 - v), (1 - p) * v), 1e-7, 1 - 1e-7)
    return sigmoid((l + lax.stop_gradient(jnp.log(u) - jnp.log1p(-u))) / t)


def _soft_class(key, d, l, t):
    e = jax.random.exponential(key, l.shape, l.dtype)
    first = jnp.sum(e * d, -1, keepdims=True)
    total = jax.nn.logsumexp(l, axis=-1, keepdims=True)
    others = -jnp.log(e * jnp.exp(-l) + first / jnp.exp(total))
    y = jnp.where(d == 1, total - jnp.log(first), others)
    return softmax((l + lax.stop_gradient(y - l)) / t)


def relaxed_top_k(key, l, t):
    def draw(a, _):
        q = softmax(a / t)
        return a + jnp.log(jnp.clip(1 - q, 1e-20)), q

    _, q = lax.scan(draw, l + gumbel(key, l.shape), None, length=K)
    return jnp.sum(q, axis=0)


def straight_through_top_k(key, l, t):
    y = lax.stop_gradient(l + gumbel(key, l.shape))
    hard = jnp.sum(jax.nn.one_hot(lax.top_k(y, K)[1], l.shape[-1], dtype=l.dtype), axis=-2)
    return _carry(hard, relaxed_top_k(key, l, t))


def simple(key, l, t):
    """The inclusion marginals by autodiff of a table of log e_j."""

    def log_total(l):
        def add(a, x):
            return jnp.logaddexp(a, jnp.append(-1e30, a[:-1]) + x), None

        a = jnp.full(K + 1, -1e30, l.dtype).at[0].set(0)
        return lax.scan(add, a, l)[0][K]

    marginals = jnp.vectorize(jax.grad(log_total), signature="(n)->(n)")(l)
    return _carry(subsets.sample(key, lax.stop_gradient(l), K), marginals)


def counts(logits):
    values, draw = jnp.arange(TRUNCATION + 1, dtype=jnp.float32), relaxed(gumbel, _mean_index)
    return lambda key, params, t: draw(key, logits(params, values), t)


# Users' code of each row, and the noise that a draw spends: here a variable is an entry of the
# parameters, below it is a row of them. None where autodiff has no such draw.
ENTRIES = {
    "bernoulli/concrete": (relaxed(logistic, sigmoid), logistic),
    "bernoulli/logit_concrete": (relaxed(logistic, lambda y: y), logistic),
    "bernoulli/straight_through": (straight_through_bit, uniform),
    "bernoulli/straight_through_concrete": (thresholded(logistic, _positive, sigmoid), logistic),
    "bernoulli/zgr": (lambda key, l, t: _second_order(key, sigmoid(l), l), uniform),
    "bernoulli/gumbel_rao": (rao(lambda key, l: _bit(key, sigmoid(l)), _soft_bit), uniform),
    "bernoulli/stochastic_times_smooth": (stochastic_times_smooth, uniform),
    "gates/gaussian": (gaussian_gate, normal),
    "gates/hard_concrete": (relaxed(logistic, _stretched), logistic),
    "counts/poisson": (counts(poisson_logits), one_per_count),
    "counts/geometric": (counts(geometric_logits), one_per_count),
}
ROWS = {
    "correlated/concrete": (relaxed(correlated, sigmoid), normal),
    "correlated/straight_through": (thresholded(correlated, _positive, sigmoid), normal),
    "categorical/gumbel_softmax": (relaxed(gumbel, softmax), gumbel),
    "categorical/log_gumbel_softmax": (relaxed(gumbel, log_softmax), gumbel),
    "categorical/straight_through": (straight_through_class, one_per_row),
    "categorical/straight_through_gumbel_softmax": (thresholded(gumbel, _largest, softmax), gumbel),
    "categorical/decoupled_straight_through": (straight_through_class, one_per_row),
    "categorical/gapped_straight_through": (gapped, one_per_row),
    "categorical/reinmax": (reinmax, one_per_row),
    "categorical/zgr": (zgr_class, one_per_row),
    "categorical/gumbel_rao": (rao(_class, _soft_class), one_per_row),
    "simplex/invertible_gaussian": (relaxed(normal, _and_zero), normal),
    "simplex/logistic_normal": (relaxed(normal, softmax), normal),
    "top_k/relaxed": (relaxed_top_k, gumbel),
    "top_k/straight_through": (straight_through_top_k, gumbel),
    "subsets/simple": (simple, uniform),
    "subsets/zgr": (None, uniform),
    "counts/generalized_gumbel_softmax": (relaxed(gumbel, _mean_index), gumbel),
}
LAWS = {name: (ENTRIES | ROWS)[name] for name in ESTIMATORS if name in ENTRIES | ROWS}
# Each row's class in other JAX libraries, their modules, and how one draws.
PEERS = {
    ("bernoulli/concrete", "TFP"): "RelaxedBernoulli",
    ("bernoulli/concrete", "numpyro"): "RelaxedBernoulliLogits",
    ("categorical/gumbel_softmax", "TFP"): "RelaxedOneHotCategorical",
    ("categorical/log_gumbel_softmax", "TFP"): "ExpRelaxedOneHotCategorical",
}
LIBRARIES = {"TFP": "tensorflow_probability.substrates.jax", "numpyro": "numpyro"}
DRAWS = {"TFP": lambda law, key: law.sample(seed=key), "numpyro": lambda law, key: law.rsample(key)}
# What the PyTorch original has, in _torch.py.
ORIGINAL = "gates/gaussian", "bernoulli/straight_through", "gates/hard_concrete"


def peers(name):
    """The row's samplers in other libraries that are here, and why the others are not."""
    present, absent = {}, {}
    for library in (library for row, library in PEERS if row == name):
        try:
            module = importlib.import_module(f"{LIBRARIES[library]}.distributions")
            law, draw = getattr(module, PEERS[name, library]), DRAWS[library]
            present[library] = lambda key, l, t, law=law, draw=draw: draw(law(t, logits=l), key)
        except ImportError as error:
            absent[f"{library} absent"] = str(error)
    return present, absent
