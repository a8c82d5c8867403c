"""Latents and scores, against every state in NumPy's float64; every row trains."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, gammaln, log_softmax, logsumexp

pytest.importorskip("tensorboardX", reason="needs the extra examples")

from flax import nnx  # noqa: E402  (after the skip)
from vae_fixtures import plain_jax_fixture, task, thorough  # noqa: E402, F401

from relaxjax import bernoulli  # noqa: E402
from relaxjax.catalog import ESTIMATORS  # noqa: E402
from vae import evaluate, latent, model  # noqa: E402

pytestmark = [pytest.mark.usefixtures("plain_jax"), pytest.mark.once]


# Each law's variables as (values, params -> log-probabilities), one variable at a time, and how a
# state of all is laid out for the decoder: independent code in NumPy.
def bits(l):
    return [[0.0], [1.0]], np.log(np.stack([expit(-l), expit(l)], axis=-1))


def classes(l):
    return np.eye(l.shape[-1]), log_softmax(l, axis=-1)


def subset(k):
    def variable(l):
        l = l.reshape(-1, l.shape[-1])
        values = [
            [float(i in chosen) for i in range(l.shape[-1])]
            for chosen in itertools.combinations(range(l.shape[-1]), k)
        ]
        return values, log_softmax(l @ np.transpose(values), axis=-1)

    return variable


def plackett_luce(k):
    def log_prob(order, l):
        left, total = list(range(len(l))), 0.0
        for item in order:
            total += l[item] - logsumexp(l[left])
            left.remove(item)
        return total

    def variable(l):
        values, table = subset(k)(l)[0], []
        for row in l.reshape(-1, l.shape[-1]):
            sets = [np.flatnonzero(value) for value in values]
            table.append(
                [logsumexp([log_prob(o, row) for o in itertools.permutations(s)]) for s in sets]
            )
        return values, np.array(table)

    return variable


def counts(log_pmf):
    def variable(l):
        n = np.arange(4)
        return n[:, None].astype(float), log_softmax(log_pmf(l, n), axis=-1)

    return variable


LAWS = {
    "bernoulli": ("3", bits),
    "categorical": ("3x2", classes),
    "subsets": ("4choose2", subset(2)),
    "top_k": ("4choose2", plackett_luce(2)),
    "counts/poisson": ("2", counts(lambda l, n: l[:, None] * n - gammaln(n + 1))),
    "counts/geometric": ("2", counts(lambda l, n: -n * np.logaddexp(0, l)[:, None])),
    "counts/generalized_gumbel_softmax": (
        "3x2",
        lambda l: (np.arange(3.0)[:, None], log_softmax(l, axis=-1)),
    ),
}


@pytest.mark.parametrize(
    "name", [name if name in ("bernoulli", "top_k") else thorough(name) for name in LAWS]
)
def test_scores_of_finite_laws(name):
    """Oracle: every state by itertools, in NumPy's float64, from the weights alone."""
    text, variables = LAWS[name]
    own = latent.parse(text, name)
    vae = model.VAE(5, own, hidden=4, rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).integers(0, 2, (7, 5)).astype(np.float32)

    def layers(sequential, x):
        first, _, last = sequential.layers
        hidden = np.maximum(x @ np.float64(first.kernel[...]) + np.float64(first.bias[...]), 0)
        return hidden @ np.float64(last.kernel[...]) + np.float64(last.bias[...])

    elbos, evidences = [], []
    for x in images:
        values, log_q = variables(layers(vae.encoder, x).reshape(own.shape))
        _, log_prior = variables(np.zeros(own.shape))
        log_q, log_prior = (np.reshape(a, (-1, len(values))) for a in (log_q, log_prior))
        elbo, joint = 0.0, []
        for state in itertools.product(range(len(values)), repeat=len(log_q)):
            z = np.concatenate([values[i] for i in state])
            p = expit(layers(vae.decoder, z))
            log_lik = np.sum(np.log(np.where(x == 1, p, 1 - p)))
            log_qz, log_pz = (sum(a[v, i] for v, i in enumerate(state)) for a in (log_q, log_prior))
            elbo += math.exp(log_qz) * (log_qz - log_pz - log_lik)
            joint.append(log_pz + log_lik)
        elbos.append(elbo)
        evidences.append(-logsumexp(joint))
    law = latent.build(own, {"truncation": 3})
    assert law.states == len(values) ** len(log_q)
    exact = jax.jit(lambda x: evaluate.exact_negative_elbo(vae, law, x))(images)
    np.testing.assert_allclose(exact, np.mean(elbos), rtol=1e-5)
    scores = jax.jit(lambda key: evaluate.sampled_scores(vae, law, key, images, 10_000))
    elbo, iwae = scores(jax.random.key(1))
    np.testing.assert_allclose(elbo, np.mean(elbos), rtol=5e-3)
    # The bound of so many samples is the evidence but for 1 in 10,000.
    np.testing.assert_allclose(iwae, np.mean(evidences), rtol=2e-3)
    assert np.mean(evidences) < np.mean(elbos)


@pytest.mark.parametrize("name", LAWS)
def test_divergence_where_something_is_sure(name):
    """Oracle: the sum over the values in NumPy's float64, 0 for what has no probability. Finite,
    with its gradient, where a logit is -inf."""
    text, variables = LAWS[name]
    own = latent.parse(text, name)
    law = latent.build(own, {"truncation": 3})
    params = 3 * np.random.default_rng(0).normal(size=own.shape)
    first = (0,) * params.ndim
    params[first] = -800  # no less than -inf for float64's probabilities
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q, log_prior = (np.asarray(variables(l)[1]) for l in (params, np.zeros(own.shape)))
        expected = np.sum(np.where(np.exp(log_q) == 0, 0, np.exp(log_q) * (log_q - log_prior)))
    params = jnp.asarray(params, jnp.float32).at[first].set(-jnp.inf)
    value, gradient = jax.jit(jax.value_and_grad(law.divergence))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.all(np.isfinite(gradient)) and gradient[first] == 0 and np.any(gradient)


def test_correlated_bits_are_scored_as_bits():
    law = latent.build(latent.parse("3", "correlated"), {"correlation_tril": None})
    assert law.family is bernoulli.family and law.states == 8
    assert latent.law_of("correlated/concrete") == "correlated"


def test_states_that_nobody_lists():
    """More than 2^20 values of one variable, and of twelve bits times so many."""
    law = latent.build(latent.parse("60choose30", "subsets"), {})
    assert law.states == math.inf and latent.build(latent.parse("30"), {}).states == 2**30


@pytest.mark.parametrize(
    "name",
    [
        "gates/gaussian",
        *map(thorough, ("gates/hard_concrete", "simplex/invertible_gaussian")),
        thorough("simplex/logistic_normal"),
    ],
)
def test_scores_of_continuous_laws(name):
    """Oracle: the divergence by samples of the law's own density; never less for hard concrete
    gates, of which it is that before they are clipped, else equal. The bound lies between -ELBO and
    the evidence, here by many more draws from the prior."""
    small = task(name, {"gates": "3", "simplex": "3x2"}[name.split("/")[0]])
    law = small.method.law(small.reals)
    params = jax.random.normal(jax.random.key(0), small.method.latent.shape) / 2
    draws = lambda seed, count, params: jax.vmap(law.family.sample, (0, None))(
        jax.random.split(jax.random.key(seed), count), params
    )
    log_ratio = lambda z: law.family.log_prob(z, params) - law.family.log_prob(z, law.prior)
    ratio = np.asarray(jax.jit(lambda: jax.vmap(log_ratio)(draws(1, 50_000, params)))())
    sampled, error = float(ratio.mean()), float(ratio.std()) / math.sqrt(len(ratio))
    divergence = float(law.divergence(params))
    if name == "gates/hard_concrete":
        assert sampled - 5 * error < divergence < 3 * sampled
    else:
        assert abs(divergence - sampled) < 5 * error
    assert law.divergence(law.prior) == 0 and law.states == math.inf
    vae = model.VAE(5, small.method.latent, hidden=4, rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).integers(0, 2, (7, 5)).astype(np.float32)

    @jax.jit
    def scores():
        prior = vae.decode(draws(3, 20_000, law.prior))
        losses = jax.vmap(lambda x: model.reconstruction_loss(prior, x))(images)
        evidence = jnp.mean(math.log(len(prior)) - jax.nn.logsumexp(-losses, axis=1))
        return evidence, *evaluate.sampled_scores(vae, law, jax.random.key(2), images, 10_000)

    evidence, elbo, iwae = scores()
    np.testing.assert_allclose(iwae, evidence, rtol=2e-3)
    assert iwae < elbo


@pytest.mark.thorough
def test_iwae_trains_on_the_bound():
    """Oracle: minus the mean of the log-mean-exp over all pairs of states, by their probability;
    and its gradient, by autodiff through that sum."""
    own = latent.parse("2")
    method = model.Method(own, None, {}, 2)
    vae, _ = method.networks(5, 4, jax.random.key(0))
    graph, params = nnx.split(vae)
    x = jnp.array([1.0, 0, 1, 1, 0])

    def exact(params):
        vae, law = nnx.merge(graph, params), method.law({})
        logits, states = vae.encode(x), law.family.support(law.prior)
        log_q = jax.vmap(law.family.log_prob, (0, None))(states, logits)
        losses = jax.vmap(lambda z: model.reconstruction_loss(vae.decode(z), x))(states)
        weights = math.log(0.25) - log_q - losses
        pairs = jnp.logaddexp(weights[:, None], weights[None]) - math.log(2)
        return -jnp.sum(jnp.exp(log_q[:, None] + log_q[None]) * pairs)

    one = lambda key: jax.value_and_grad(
        lambda params: method.loss(nnx.merge(graph, params), None, {}, key, x)
    )(params)
    draws = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 20_000))

    def close(draws, expected):
        error = 5.5 * draws.std(0) / math.sqrt(len(draws)) + 1e-6
        assert np.all(np.abs(draws.mean(0) - expected) < error)

    jax.tree.map(close, draws, jax.value_and_grad(exact)(params))


TINY = {"12": "4", "8x4": "3x2", "64x1": "5x1", "10choose3": "4choose2", "3": "2"}


# Of every law, and all that have something of their own in the program.
TRAINED = (
    "correlated/concrete", "bernoulli/relax", "categorical/quadratic",
    "categorical/unordered_set", "subsets/simple", "top_k/relaxed", "gates/hard_concrete",
    "simplex/invertible_gaussian", "counts/poisson", "counts/generalized_gumbel_softmax",
)  # fmt: skip


def tiny(name):
    """(params, key, x) -> loss of an image by a row of the catalog, its parameters, a batch."""
    small = task(name, TINY[latent.default(name)], hidden=16)
    graph, params = nnx.split(small.method.networks(64, 16, jax.random.key(0)))

    def loss(params, key, x):
        return small.method.loss(*nnx.merge(graph, params), small.reals, key, x)

    return loss, params, small.train[:20].astype(jnp.float32)


def of_batch(loss, params, batch):
    """(params, key) -> the mean loss, and the parameters."""

    def mean(params, key):
        each = jax.vmap(loss, (None, 0, 0))
        return jnp.mean(each(params, jax.random.split(key, len(batch)), batch))

    return mean, params


UNTRAINED = sorted(set(ESTIMATORS) - set(TRAINED))


@pytest.mark.parametrize("name", UNTRAINED)
def test_every_row_has_a_gradient(name):
    """Of an image's loss, in shape; test_every_row_trains has the numbers."""
    loss, params, batch = tiny(name)
    gradient = jax.eval_shape(jax.grad(loss), params, jax.random.key(0), batch[0])
    assert jax.tree.all(jax.tree.map(lambda g, x: g.shape == x.shape, gradient, params))


def test_the_bound_has_a_gradient():
    """In shape; test_iwae_trains_on_the_bound has the numbers."""
    method = model.Method(latent.parse("3"), None, {}, 4)
    graph, params = nnx.split(method.networks(5, 4, jax.random.key(0)))
    loss = lambda params, key: method.loss(*nnx.merge(graph, params), {}, key, jnp.zeros(5))
    gradient = jax.eval_shape(jax.grad(loss), params, jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda g, x: g.shape == x.shape, gradient, params))


@pytest.mark.parametrize(
    "names",
    [
        ("bernoulli/concrete", "bernoulli/logit_concrete"),
        ("categorical/gumbel_softmax", "categorical/log_gumbel_softmax"),
    ],
)
def test_log_forms(names):
    """Oracle: the form that is no logarithm, of the same draw."""
    (a, params), (b, _) = (of_batch(*tiny(name)) for name in names)
    a, b = (jax.jit(jax.value_and_grad(loss))(params, jax.random.key(1)) for loss in (a, b))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


@pytest.mark.parametrize("name", [*TRAINED[:4], *map(thorough, (*TRAINED[4:], *UNTRAINED))])
def test_every_row_trains(name):
    """A few hundred steps of plain descent on one batch take off what the pixels' means give."""
    loss, params = of_batch(*tiny(name))

    def step(params, key):
        value, gradient = jax.value_and_grad(loss)(params, key)
        return jax.tree.map(lambda x, g: x - 0.02 * g, params, gradient), value

    keys = jax.random.split(jax.random.key(1), 200)
    end, losses = jax.jit(lambda params: jax.lax.scan(step, params, keys))(params)
    assert np.isfinite(losses).all() and losses[-20:].mean() < losses[:5].mean() - 10
    # All that learns has moved: also the network of a control variate.
    moved = jax.tree.map(lambda x, y: bool(jnp.any(x != y)), params, end)
    assert jax.tree.all(moved)
