"""The distrax classes as laws: densities, moments, divergences, composition, a VAE."""

import functools
import itertools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import central, close
from scipy import integrate, stats
from scipy.special import expit, log_softmax, logsumexp

from relaxjax import bernoulli, categorical, top_k

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, as it is imported
    distrax = pytest.importorskip("distrax", reason="needs the extra distrax")
    from tensorflow_probability.substrates.jax import distributions as tfd

    from relaxjax import distributions as D

KEY = jax.random.key(0)
thorough = functools.partial(pytest.param, marks=pytest.mark.thorough)
L = np.array([[0.3, -1.0, 2.0], [0.0, 0.5, -0.2]])
OTHER = np.array([[-0.5, 0.2, 0.4], [1.0, 0.1, -3.0]])
SCALE = np.array([[0.6, 0.7, 0.8], [1.1, 1.0, 0.9]])
TEMPERATURES = [1e-3, 0.05, 0.5, 1.0, 1e3]
TRIL = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, -0.6, 0.8]])


# An instance is an argument like another.
log_prob = jax.jit(lambda law, x: law.log_prob(x))
sample = jax.jit(lambda law, n=(): law.sample(seed=KEY, sample_shape=n), static_argnums=1)
own_log_prob = jax.jit(lambda law: law.sample_and_log_prob(seed=KEY))
kl_divergence = jax.jit(lambda q, p: q.kl_divergence(p))
mean_variance_entropy = jax.jit(lambda law: (law.mean(), law.variance(), law.entropy()))


@pytest.fixture
def relaxed_jax():
    """JAX as it comes: distrax and TFP are not made for strict promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


# ---------------------------------------------------------------------------------- densities


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [1.0, *map(thorough, (2.0, 5.0))])
def test_log_prob_agrees_with_tfp(dtype, temperature, relaxed_jax):
    """Where TFP is right; in float64 to rounding."""
    logits, tolerance = L.astype(dtype), 1e-5 if dtype == np.float32 else 1e-12
    for law, twin in (
        (D.RelaxedBernoulli, tfd.RelaxedBernoulli),
        (D.RelaxedOneHotCategorical, tfd.RelaxedOneHotCategorical),
    ):
        law, twin = law(logits, temperature=temperature), twin(dtype(temperature), logits=logits)
        z = sample(law, 50)
        close(log_prob(law, z), jax.jit(twin.log_prob)(z), rtol=tolerance, atol=tolerance)


@pytest.mark.thorough
@pytest.mark.parametrize("law", [D.RelaxedBernoulli, D.RelaxedOneHotCategorical])
def test_log_prob_is_finite_where_tfp_is_not(law, relaxed_jax):
    """Samples that have rounded to the border."""
    twin = getattr(tfd, law.__name__)(np.float32(0.02), logits=L.astype(np.float32))
    law = law(L.astype(np.float32), temperature=0.02)
    z = sample(law, 200)
    assert np.all(np.isfinite(log_prob(law, z)))
    assert not np.all(np.isfinite(twin.log_prob(z)))


RELAXED = {
    "RelaxedBernoulli": lambda l, t: D.RelaxedBernoulli(l, temperature=t),
    "CorrelatedRelaxedBernoulli": lambda l, t: D.CorrelatedRelaxedBernoulli(l, TRIL, temperature=t),
    "HardConcrete": lambda l, t: D.HardConcrete(l, temperature=t),
    "RelaxedOneHotCategorical": lambda l, t: D.RelaxedOneHotCategorical(l, temperature=t),
    "InvertibleGaussian": lambda l, t: D.InvertibleGaussian(l, temperature=t, scale=t),
    "LogisticNormal": lambda l, t: D.LogisticNormal(l, temperature=t, scale=2.0),
}
# Their sample_and_log_prob is no call of one function.
OF_CLASSES = ("RelaxedBernoulli", "RelaxedOneHotCategorical")


@pytest.mark.parametrize(
    "name, dtype",
    [(name, "float32") for name in RELAXED]
    + [(name, "float64") for name in OF_CLASSES]
    + [thorough(name, "float64") for name in RELAXED if name not in OF_CLASSES]
    + [thorough(name, "bfloat16") for name in (*OF_CLASSES, "InvertibleGaussian")],
)
def test_sample_and_log_prob_is_finite_and_exact(name, dtype):
    """With its gradient. Oracle: log_prob of the same draw where it has not rounded; in bfloat16
    that of float32, whose noise it has, rounded once."""

    @jax.jit
    def draws(logits, temperature):
        def total(logits, temperature):
            law = RELAXED[name](logits, temperature)
            z, log_p = law.sample_and_log_prob(seed=KEY, sample_shape=100)
            return jnp.sum(log_p), (z, log_p, law.log_prob(z))

        (_, values), gradient = jax.value_and_grad(total, (0, 1), has_aux=True)(logits, temperature)
        return values, gradient

    for temperature in TEMPERATURES:
        logits = jnp.asarray(L, dtype)
        (z, log_p, of_z), gradient = draws(logits, jnp.float32(temperature))
        assert z.dtype == log_p.dtype == dtype
        assert np.all(np.isfinite(log_p.astype(np.float32)))
        assert all(np.all(np.isfinite(g.astype(np.float32))) for g in gradient)
        if dtype == "bfloat16":
            (_, exact, _), _ = draws(logits.astype("float32"), jnp.float32(temperature))
            assert np.mean(log_p == np.asarray(exact).astype(dtype)) > 0.99
        inside = np.all((z > 1e-9) & (z < 1 - 1e-6), axis=tuple(range(log_p.ndim, z.ndim)))
        if dtype == "float64" and temperature < 1e3:
            close(log_p[inside], of_z[inside], rtol=1e-7, atol=1e-7)


@pytest.mark.once
@pytest.mark.parametrize("temperature", [1e-2, 1e-3])
def test_sample_and_log_prob_at_low_temperature(temperature):
    """Oracle: the densities in logit and in log space, in float64, from float32 draws."""
    logits = L.astype(np.float32)
    t = np.float64(np.float32(temperature))
    law = D.RelaxedBernoulli(logits, temperature=temperature)
    log_p = own_log_prob(law)[1]
    y = np.float64(bernoulli.logit_concrete(KEY, logits, temperature=temperature))
    slope = np.logaddexp(0, y) + np.logaddexp(0, -y)
    close(log_p, stats.logistic.logpdf(y, L / t, 1 / t) + slope, rtol=1e-5, atol=1e-3)
    law = D.RelaxedOneHotCategorical(logits, temperature=temperature)
    log_p = own_log_prob(law)[1]
    u = np.float64(categorical.log_gumbel_softmax(KEY, logits, temperature=temperature))
    a = L - t * u
    value = math.log(2) + 2 * math.log(t) + a.sum(-1) - 3 * logsumexp(a, axis=-1) - u.sum(-1)
    close(log_p, value, rtol=1e-5, atol=1e-3)


@pytest.mark.once
@pytest.mark.parametrize("temperature", [0.5, 1.5])
def test_logistic_normal_density(temperature):
    """Oracle: scipy's Gaussian of the log-ratios, and TFP's LogitNormal for two classes."""
    law = D.LogisticNormal(L, scale=SCALE, temperature=temperature)
    z = np.asarray(sample(law, 4))
    ratios = np.log(z[..., :-1] / z[..., -1:])
    for i in range(2):
        mean, variance = L[i] / temperature, SCALE[i] ** 2 / temperature**2
        gaussian = stats.multivariate_normal(
            mean[:-1] - mean[-1], np.diag(variance[:-1]) + variance[-1]
        )
        expected = gaussian.logpdf(ratios[:, i]) - np.log(z[:, i]).sum(-1)
        close(log_prob(law, z)[:, i], expected, rtol=1e-10, atol=1e-10)
    two = D.LogisticNormal(L[:, :2], scale=SCALE[:, :2], temperature=temperature)
    z = np.array([[0.2, 0.8], [0.9, 0.1]])
    scale = np.sqrt((SCALE[:, :2] ** 2).sum(-1)) / temperature
    twin = tfd.LogitNormal((L[:, 0] - L[:, 1]) / temperature, scale)
    close(log_prob(two, z), twin.log_prob(z[:, 0]), rtol=1e-10)
    masked = D.LogisticNormal(np.array([0.3, -np.inf, -1.0]), scale=0.7, temperature=temperature)
    pair = D.LogisticNormal(np.array([0.3, -1.0]), scale=0.7, temperature=temperature)
    close(log_prob(masked, np.array([0.2, 0, 0.8])), log_prob(pair, z[0]), rtol=1e-12)
    assert log_prob(masked, np.array([0.2, 0.3, 0.5])) == -np.inf
    z, log_p = own_log_prob(masked)
    close(log_p, log_prob(masked, z), rtol=1e-10)


orders_log_prob = jax.jit(jax.vmap(top_k.log_prob, (0, None)))


def orders_of(logits, k):
    """Every k-subset as a k-hot, and the log-probability of its orders together."""
    hots, log_p = [], []
    for subset in itertools.combinations(range(len(logits)), k):
        orders = np.array(list(itertools.permutations(subset)))
        log_p.append(logsumexp(orders_log_prob(orders, logits)))
        hots.append(np.isin(range(len(logits)), subset) * 1.0)
    return np.array(hots), np.array(log_p)


@pytest.mark.once
@pytest.mark.parametrize("k", [thorough(1), 2, thorough(3), 5])
@pytest.mark.parametrize(
    "logits", [[0.5, -1, 0, 1.2, 0.3], [30, 1e4, -30, 0, 1], [0, 12, -12, 3, 11.5]], ids=str
)
def test_probability_of_a_set(logits, k):
    """Oracle: k! orders of each."""
    logits = np.array(logits, np.float64)
    hots, expected = orders_of(logits, k)
    law = D.GumbelSoftmaxTopK(logits, k)
    close(log_prob(law, hots), expected, rtol=1e-10, atol=1e-11)
    close(logsumexp(log_prob(law, hots)), 0, atol=1e-11)
    single = log_prob(D.GumbelSoftmaxTopK(logits.astype(np.float32), k), hots)
    close(single, expected, rtol=3e-6, atol=3e-6)


@pytest.mark.once
def test_probability_of_a_set_elsewhere():
    """Derivatives by central differences; a larger k by inclusion and exclusion; what is no set."""
    x = np.array([1.0, 0, 1, 0, 0])
    logits = np.array([0.5, -1, 0, 1.2, 0.3])
    value = jax.jit(lambda logits: D.GumbelSoftmaxTopK(logits, 2).log_prob(x))
    both = jax.jit(jax.value_and_grad(value))
    close(both(logits)[1], central(value, logits), rtol=1e-6, atol=1e-8)
    masked = np.array([0.5, -np.inf, 0, 1.2, -np.inf])
    both = both(masked)
    keep = masked > -np.inf
    close(both[0], log_prob(D.GumbelSoftmaxTopK(masked[keep], 2), x[keep]), rtol=1e-12)
    assert np.all(np.isfinite(both[1])) and np.array_equal(both[1] != 0, keep)
    assert value(np.array([-np.inf, 0, 1, 0, 0])) == -np.inf
    assert log_prob(D.GumbelSoftmaxTopK(logits, 3), x) == -np.inf
    assert np.isnan(value(np.array([0.0, -np.inf, -np.inf, -np.inf, -np.inf])))
    assert np.isnan(log_prob(D.GumbelSoftmaxTopK(logits, 2), x - [0.1, 0, 0, 0, -0.1]))
    weights = np.random.default_rng(0).uniform(0.5, 2, 20)
    w = weights[:10] / weights[10:].sum()
    exact = sum((-1) ** sum(s) / (1 + w @ s) for s in itertools.product([0, 1], repeat=10))
    hot = np.repeat([1.0, 0], 10)
    close(log_prob(D.GumbelSoftmaxTopK(np.log(weights), 10), hot), np.log(exact), rtol=1e-9)


@pytest.mark.once
def test_probability_of_a_value():
    law = D.GeneralizedGumbelSoftmax(L, np.array([0.0, 1.0, 1.0]))
    log_p = log_softmax(L, axis=-1)
    close(log_prob(law, np.zeros(2)), log_p[:, 0], rtol=1e-12)
    close(log_prob(law, np.ones((4, 1))), [np.logaddexp(*log_p[:, 1:].T)] * 4, rtol=1e-12)
    assert np.all(np.isnan(log_prob(law, sample(law))))


# ----------------------------------------------------------------------------- discrete moments

DISCRETE = {
    "bits": D.StraightThroughBernoulli(L, estimator="zgr"),
    "one-hots": D.StraightThroughOneHotCategorical(L),
    "masked": D.StraightThroughOneHotCategorical(np.array([0.3, -np.inf, 2.0])),
    "decoupled": D.StraightThroughOneHotCategorical(
        L, estimator="decoupled", forward_temperature=0.5
    ),
    "smooth": D.StochasticTimesSmooth(L),
    "orders": D.PlackettLuce(L, 2),
    "subsets": D.Subset(L, 2),
}


@pytest.mark.once
@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_moments(name):
    """Oracle: enumerate_support, whose probabilities sum to 1."""
    law = DISCRETE[name]
    methods = ["mode", "mean", "variance", "entropy"][: 1 if name == "orders" else 4]

    @jax.jit
    def of(law):
        x, z = law.enumerate_support(), law.sample(seed=KEY, sample_shape=500)
        return x, law.log_prob(x), law.log_prob(z), [getattr(law, m)() for m in methods]

    support, log_p, log_p_of_draws, (mode, *moments) = of(law)
    x, log_p = np.asarray(support, np.float64), np.asarray(log_p)
    p = np.exp(log_p)
    axes = tuple(range(p.ndim, x.ndim))
    weights = np.expand_dims(p, axes)
    assert law.has_enumerate_support and x.shape[1:] == law.batch_shape + law.event_shape
    close(p.sum(0), 1, rtol=1e-12)
    best = np.expand_dims(p.argmax(0)[None], axes)
    assert np.array_equal(mode, np.take_along_axis(x, best, axis=0)[0])
    if name != "orders":
        mean = (weights * x).sum(0)
        close(moments[0], mean, rtol=1e-12)
        close(moments[1], (weights * (x - mean) ** 2).sum(0), rtol=1e-9, atol=1e-14)
        close(moments[2], -(p * np.where(p > 0, log_p, 0)).sum(0), rtol=1e-12)
    assert np.all(np.isfinite(log_p_of_draws))


@pytest.mark.once
def test_tails_of_discrete_moments():
    """Probabilities near 1, in float32: no cancellation."""
    logits = np.array([30.0, -30.0], np.float32)
    v = expit(-30.0) * expit(30.0)
    close(D.StraightThroughBernoulli(logits).variance(), [v, v], rtol=1e-5, atol=0)
    close(D.StraightThroughOneHotCategorical(logits / 2).variance(), [v, v], rtol=1e-5)
    assert np.array_equal(D.PlackettLuce(np.array([0.3, -np.inf]), 2).mode(), [-1, -1])
    with pytest.raises(NotImplementedError):
        D.RelaxedBernoulli(logits).enumerate_support()
    with pytest.raises(ValueError, match="enumerate"):
        D.Subset(np.zeros(40), 20).enumerate_support()


@pytest.mark.once
@pytest.mark.parametrize("mean, scale", [(0.3, 0.5), (-2.0, 0.4), (1.5, 1.0), (0.5, 3.0)])
def test_gaussian_gate_moments(mean, scale):
    """Oracle: quadrature between the masses."""
    law, other = D.GaussianRelaxedBernoulli(mean, scale=scale), (0.6, 0.9)
    log_p = lambda z, m, s: stats.norm.logpdf(z, m, s)
    ends = lambda m, s: np.array([stats.norm.logcdf(0, m, s), stats.norm.logsf(1, m, s)])
    own = ends(mean, scale)
    p = np.exp(own)

    def expect(f, at_ends):
        g = lambda z: np.exp(log_p(z, mean, scale)) * f(z)
        return integrate.quad(g, 0, 1, epsabs=1e-13)[0] + p @ at_ends

    m = expect(lambda z: z, np.array([0, 1]))
    own_mean, own_variance, own_entropy = mean_variance_entropy(law)
    close(own_mean, m, rtol=1e-8)
    square = lambda z: (z - m) ** 2
    close(own_variance, expect(square, square(np.array([0, 1]))), rtol=1e-8)
    close(own_entropy, -expect(lambda z: log_p(z, mean, scale), own), rtol=1e-8)
    ratio = lambda z: log_p(z, mean, scale) - log_p(z, *other)
    kl = kl_divergence(law, D.GaussianRelaxedBernoulli(other[0], scale=other[1]))
    close(kl, expect(ratio, own - ends(*other)), rtol=1e-8)


# ------------------------------------------------------------------------------- divergences


@pytest.mark.once
@pytest.mark.parametrize("temperature", [0.5, *map(thorough, (2, 1, 0.2, 0.1, 0.05))])
def test_relaxed_bernoulli_kl(temperature):
    """Monte Carlo in logit space at every temperature, over samples from 1/2 on; finite below."""
    logits_q, logits_p = np.float32(2.0), np.float32(-1.0)
    q = D.RelaxedBernoulli(logits_q, temperature=temperature)
    p = D.RelaxedBernoulli(logits_p, temperature=temperature)
    kl = q.kl_divergence(p)
    close(kl, 1.3143741789, rtol=1e-6)

    @jax.jit
    def draws(q, p):
        shape = (1_000_000,)
        t = q.temperature
        y = bernoulli.logit_concrete(KEY, logits_q, temperature=t, shape=shape)
        log_prob = bernoulli.logit_concrete_log_prob
        difference = log_prob(y, logits_q, temperature=t) - log_prob(y, logits_p, temperature=t)
        z, log_q = q.sample_and_log_prob(seed=KEY, sample_shape=shape)
        return difference, log_q - p.log_prob(z)

    in_logit_space, over_samples = draws(q, p)
    close(np.mean(in_logit_space, dtype=np.float64), kl, rtol=0.01)
    assert np.all(np.isfinite(over_samples))
    if temperature >= 0.5:
        close(np.mean(over_samples, dtype=np.float64), kl, rtol=0.01)


def test_kl_with_twins():
    """TFP's and distrax's in either place; NaN where the temperatures differ, each by itself."""
    q, p = (D.RelaxedBernoulli(l, temperature=[0.3, 0.5, 0.7]) for l in (L, OTHER))
    temperature, logits = np.array([0.3, 0.5, 0.8], np.float32), OTHER.astype(np.float32)
    twin = tfd.RelaxedBernoulli(temperature, logits=logits)
    expected = bernoulli.concrete_kl(L, OTHER)
    close(q.kl_divergence(p), expected, rtol=1e-12)
    for kl in (q.kl_divergence(twin), tfd.kl_divergence(twin, q)):
        close(kl[:, :2], expected[:, :2], rtol=1e-6)
        assert np.all(np.isnan(kl[:, 2])) and kl.shape == (2, 3)
    scalar = tfd.RelaxedBernoulli(np.float32(0.5), logits=logits)
    kl = D.RelaxedBernoulli(L[0]).kl_divergence(scalar)
    close(kl, bernoulli.concrete_kl(L[:1], OTHER), rtol=1e-6)
    zero = D.RelaxedBernoulli(0.0, temperature=[0.3, 0.5, 0.7])
    close(q.kl_divergence(zero), bernoulli.concrete_kl(L, np.zeros((2, 3))), rtol=1e-12)


def test_kl_of_discrete_laws(relaxed_jax):
    """Oracle: the sum over the values, with both twins; +inf outside the other's support."""
    p, r = expit(L), expit(OTHER)
    expected = p * np.log(p / r) + (1 - p) * np.log((1 - p) / (1 - r))
    ours = D.StraightThroughBernoulli(OTHER, estimator="gumbel_rao")
    for other in (ours, tfd.Bernoulli(logits=OTHER), distrax.Bernoulli(probs=r)):
        tolerance = 1e-10 if other is ours else 1e-6  # TFP's are in float32
        close(D.StraightThroughBernoulli(L).kl_divergence(other), expected, rtol=tolerance)
        close(tfd.kl_divergence(other, ours), np.zeros((2, 3)), atol=tolerance)
    one_hot = D.StraightThroughOneHotCategorical
    log_p, log_r = log_softmax(L, -1), log_softmax(2 * OTHER, -1)
    expected = np.sum(np.exp(log_p) * (log_p - log_r), -1)
    ours = one_hot(OTHER, estimator="decoupled", forward_temperature=0.5)
    twins = tfd.OneHotCategorical(logits=2 * OTHER), distrax.OneHotCategorical(logits=2 * OTHER)
    for other in (ours, *twins):
        tolerance = 1e-10 if other is ours else 1e-6
        close(one_hot(L).kl_divergence(other), expected, rtol=tolerance)
        close(tfd.kl_divergence(other, ours), np.zeros(2), atol=tolerance)
    masked = one_hot(np.array([0.3, -np.inf, 2.0]))
    assert one_hot(L).kl_divergence(masked).tolist() == [np.inf, np.inf]
    assert np.isfinite(masked.kl_divergence(one_hot(L[0])))
    assert np.all(np.isfinite(jax.grad(lambda l: masked.kl_divergence(one_hot(l)))(L[0])))


@pytest.mark.once
def test_kl_of_subsets():
    q, p = D.Subset(L, 2), D.Subset(OTHER, 2)
    x = q.enumerate_support()
    log_q, log_p = log_prob(q, x), log_prob(p, x)
    close(kl_divergence(q, p), np.sum(np.exp(log_q) * (log_q - log_p), 0), rtol=1e-10)
    with pytest.raises(ValueError, match="Subset: got k = 2 and k = 1"):
        q.kl_divergence(D.Subset(L, 1))


def dense_gaussian_kl(mean_q, cov_q, mean_p, cov_p):
    inverse, shift = np.linalg.inv(cov_p), mean_p - mean_q
    trace = np.trace(inverse @ cov_q) + shift @ inverse @ shift - len(shift)
    return (trace + np.linalg.slogdet(cov_p)[1] - np.linalg.slogdet(cov_q)[1]) / 2


@pytest.mark.once
def test_kl_of_gaussians_on_the_simplex():
    """Oracle: dense matrices; for the logistic-normal of the log-ratios."""
    ours = lambda mean, scale, t=0.5: D.InvertibleGaussian(mean, scale=scale, temperature=t)
    kl = kl_divergence(ours(L, SCALE), ours(OTHER, 2 * SCALE))
    for i in range(2):
        s = np.diag(SCALE[i] ** 2)
        close(kl[i], dense_gaussian_kl(L[i], s, OTHER[i], 4 * s), rtol=1e-10)
    cooler = ours(L, SCALE, [0.5, 0.6])
    assert np.isnan(kl_divergence(ours(L, SCALE), cooler)).tolist() == [False, True]
    offset = D.InvertibleGaussian(L, temperature=0.5, offset=[1.0, 2.0])
    assert np.isnan(kl_divergence(ours(L, SCALE), offset)).tolist() == [False, True]
    q = D.LogisticNormal(L, scale=SCALE, temperature=0.7)
    p = D.LogisticNormal(OTHER, scale=1.5, temperature=[0.7, 1.3])
    kl, A = kl_divergence(q, p), np.array([[1, 0, -1], [0, 1, -1]])
    for i, t in enumerate([0.7, 1.3]):
        cov_q = A @ np.diag(SCALE[i] ** 2) @ A.T / 0.49
        cov_p = A @ A.T * 1.5**2 / t**2
        close(kl[i], dense_gaussian_kl(A @ L[i] / 0.7, cov_q, A @ OTHER[i] / t, cov_p), rtol=1e-10)


# -------------------------------------------------------------------------------- composition


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_meta_distributions_of_distrax(relaxed_jax):
    """Independent, Transformed, MixtureSameFamily."""
    law, other = D.RelaxedBernoulli(L), D.RelaxedBernoulli(OTHER)
    z, log_p = own_log_prob(law)
    independent = distrax.Independent(law, 1)
    assert (independent.batch_shape, independent.event_shape) == ((2,), (3,))
    own_z, own_log_p = own_log_prob(independent)
    close(own_z, z, rtol=1e-12)
    close(own_log_p, log_p.sum(-1), rtol=1e-12)
    kl = kl_divergence(independent, distrax.Independent(other, 1))
    close(kl, bernoulli.concrete_kl(L, OTHER).sum(-1), rtol=1e-12)

    logit = distrax.Transformed(law, distrax.Inverse(distrax.Sigmoid()))
    y = np.array([[0.4, -2.0, 5.0], [1.0, 0.0, -3.0]])
    close(log_prob(logit, y), bernoulli.logit_concrete_log_prob(y, L, temperature=0.5), rtol=1e-9)
    assert sample(logit).shape == (2, 3)

    weights = distrax.Categorical(logits=np.array([0.3, 1.0]))
    mixture = distrax.MixtureSameFamily(weights, D.RelaxedOneHotCategorical(L))
    z = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    terms = log_prob(D.RelaxedOneHotCategorical(L), z[:, None]) + log_softmax([0.3, 1.0])
    close(log_prob(mixture, z), logsumexp(terms, axis=-1), rtol=1e-12)
    assert sample(mixture, 4).shape == (4, 3)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_joint_distributions_of_tfp(relaxed_jax):
    """The six, over distrax.to_tfp as distrax's own laws need it."""
    a = lambda: distrax.to_tfp(D.RelaxedBernoulli(L[0]), name="a")
    b = lambda x: distrax.to_tfp(D.RelaxedBernoulli(x, temperature=1.0), name="b")

    def rooted():
        x = yield tfd.JointDistributionCoroutine.Root(a())
        yield b(x)

    def plain():
        x = yield a()
        yield b(x)

    joints = {
        tfd.JointDistributionNamed: {"a": a(), "b": lambda a: b(a)},
        tfd.JointDistributionNamedAutoBatched: {"a": a(), "b": lambda a: b(a)},
        tfd.JointDistributionSequential: [a(), lambda a: b(a)],
        tfd.JointDistributionSequentialAutoBatched: [a(), lambda a: b(a)],
        tfd.JointDistributionCoroutine: rooted,
        tfd.JointDistributionCoroutineAutoBatched: plain,
    }
    for joint, model in joints.items():
        law = joint(model)
        z = jax.jit(lambda law=law: law.sample(4, seed=KEY))()
        x, y = z.values() if isinstance(z, dict) else z
        expected = log_prob(D.RelaxedBernoulli(L[0]), x)
        expected += log_prob(D.RelaxedBernoulli(x, temperature=1.0), y)
        log_p = jax.jit(law.log_prob)(z)
        close(log_p, expected.sum(-1) if log_p.ndim == 1 else expected, rtol=1e-10)


# ----------------------------------------------------------------------------------------- a VAE


def train(loss):
    """Three steps of gradient descent on two linear layers; the losses and the weights."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 2, (16, 6)), jnp.float32)
    layer = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32) / 2
    params = layer(6, 4), layer(4, 6), layer(4)  # encoder, decoder, the prior's log-odds

    @jax.jit
    def step(params, key, temperature):
        value, gradient = jax.value_and_grad(loss)(params, key, x, temperature)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), value

    losses = []
    for key, temperature in zip(jax.random.split(KEY, 3), [1.0, 0.8, 0.6], strict=True):
        params, value = step(params, key, jnp.float32(temperature))
        losses.append(value)
    return losses, params


@pytest.mark.once
def test_a_vae_of_classes_alone():
    """To the bit: the losses and the weights of the functions, given one temperature an entry as
    the classes hold it (the compiler multiplies by the reciprocal of a scalar)."""

    def of_classes(params, key, x, temperature):
        encoder, decoder, prior = params
        q = D.RelaxedBernoulli(x @ encoder, temperature=temperature)
        p = D.RelaxedBernoulli(prior, temperature=temperature)
        likelihood = D.StraightThroughBernoulli(q.sample(seed=key) @ decoder)
        return jnp.sum(q.kl_divergence(p)) - jnp.sum(likelihood.log_prob(x))

    def of_functions(params, key, x, temperature):
        encoder, decoder, prior = params
        logits = x @ encoder
        temperature = jnp.broadcast_to(temperature, logits.shape)
        z = bernoulli.concrete(key, logits, temperature=temperature)
        kl = bernoulli.concrete_kl(logits, prior)
        return jnp.sum(kl) - jnp.sum(bernoulli.log_prob(x, z @ decoder))

    (losses, weights), (expected, functions) = train(of_classes), train(of_functions)
    assert np.array_equal(losses, expected) and losses[-1] < losses[0]
    assert all(np.array_equal(a, b) for a, b in zip(weights, functions, strict=True))
