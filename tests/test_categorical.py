"""The laws and rules of one of C classes, against closed forms, quadrature and enumeration."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, J, close, hard_rule, of_noise, pullback
from scipy import integrate, stats
from scipy.special import log_softmax, logsumexp, softmax

from relaxjax import _noise, _rules, bernoulli, categorical

KEY = jax.random.key(0)
# The reference's inputs.
C3 = np.array([0.2, -1.0, 0.7])
G3 = np.array([1.0, -2.0, 0.5])
A = np.array([[1, 0.3, -0.2], [0.3, 0.5, 0.7], [-0.2, 0.7, -1]])
B = np.array([0.4, -0.1, 0.2])
D = np.eye(3)
SLOPES = {
    "linear": lambda z: G3,
    "quadratic": lambda z: A @ z + B,
    "exp": lambda z: np.exp(z @ [1, -0.5, 0.3]) * np.array([1, -0.5, 0.3]),
}
ONE, TWO, HALF = np.float64(1), np.float64(2), np.float64(0.5)
DTYPES = ["bfloat16", "float16", "float32", "float64"]

# core, its hyperparameters, and its Jacobian dz/dlogits as the docstring states it, at draw d
HARD = {
    "straight_through": (
        hard_rule(categorical._straight_through_rule),
        (TWO,),
        lambda d, l: J(softmax(l / 2)) / 2,
    ),
    "decoupled_straight_through": (
        hard_rule(categorical._decoupled_rule),
        (HALF, TWO),
        lambda d, l: J(softmax(l / 2)) / 2,
    ),
    "gapped_straight_through": (
        hard_rule(categorical._gapped_rule),
        (HALF, ONE),
        lambda d, l: J(softmax(np.where(d, l.max(), np.minimum(l, l.max() - 1)) / 0.5)) / 0.5,
    ),
    "reinmax": (
        hard_rule(categorical._reinmax_rule),
        (TWO,),
        lambda d, l: 2 * J((d + softmax(l / 2)) / 2) - J(softmax(l)) / 2,
    ),
    "zgr": (
        hard_rule(categorical._zgr_rule),
        (),
        lambda d, l: (J(softmax(l)) + np.outer(d - softmax(l), d - softmax(l))) / 2,
    ),
}


def rule(core, d, logits, g, *hyperparameters):
    """The cotangents of logits and hyperparameters."""
    return pullback(lambda *a: core(d, *a), logits, *hyperparameters)(g)


def expected(core, slope, *hyperparameters):
    """E[rule] over the classes of C3."""
    p = softmax(C3)
    return sum(p[i] * rule(core, D[i], C3, slope(D[i]), *hyperparameters)[0] for i in range(3))


# ---------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize(
    "logits",
    [[0.3, -1.2, 2.0], [0.0, -np.inf, 1.0], [1e4, 0.0, -1e4], [0.0], [1.5, -0.5]],
    ids=str,
)
def test_hard_rules_are_their_dense_jacobians(name, logits):
    core, hyperparameters, jacobian = HARD[name]
    logits = np.array(logits)
    for i in np.flatnonzero(logits > -np.inf):
        d = np.eye(len(logits))[i]
        z, back = jax.vjp(lambda *a, d=d: core(d, *a), logits, *hyperparameters)  # noqa: B023
        assert np.array_equal(z, d)
        rows = np.stack([back(jnp.asarray(g))[0] for g in np.eye(len(logits))])
        close(rows, jacobian(d, logits), rtol=1e-11, atol=1e-15)
        assert np.all(rows[:, logits == -np.inf] == 0)
        # An infinite cotangent in a masked class, such as that of log z, stays there.
        infinite = back(jnp.where(logits == -np.inf, np.inf, 1.0))[0]
        assert np.all(np.isfinite(infinite))
        for k, cotangent in enumerate(back(jnp.asarray(G3[: len(logits)]))[1:]):
            if (name, k) != ("decoupled_straight_through", 0):
                assert cotangent == 0


def test_rules_by_batch_are_rules_by_row():
    """One (2, 3) batch with a temperature a row against its rows."""
    logits, d, g = np.stack([C3, -C3]), D[:2], np.stack([G3, G3[::-1]])
    t = np.array([[0.5], [2.0]])
    for core in (
        hard_rule(categorical._straight_through_rule),
        hard_rule(categorical._reinmax_rule),
    ):
        both = rule(core, d, logits, g, t)[0]
        for i in range(2):
            close(both[i], rule(core, d[i], logits[i], g[i], t[i, 0])[0], rtol=1e-13)
    noise = np.array([[0.1, 0.5, -0.3], [1.0, 0.2, 0.0]])
    for core in (of_noise(_rules.tempered_softmax), of_noise(_rules.tempered_log_softmax)):
        _, dl, dt = pullback(core, noise, logits, t)(g)
        assert dt.shape == (2, 1)
        for i in range(2):
            _, row_dl, row_dt = pullback(core, noise[i], logits[i], t[i, 0])(g[i])
            close(dl[i], row_dl, rtol=1e-12)
            close(dt[i, 0], row_dt, rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 16, 17, 40])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_relaxed_rules_are_derivatives(temperature, classes):
    """Oracle: z = softmax((l + G) / t) by NumPy, and its derivatives as dense matrices."""
    rng = np.random.default_rng(classes)
    l, noise, g = rng.normal(size=classes), rng.gumbel(size=classes), rng.normal(size=classes)
    l[0] = -np.inf if classes > 2 else l[0]
    x = (l + noise) / temperature
    z, t = softmax(x), np.float64(temperature)
    finite = np.where(np.isfinite(x), x, 0)
    value, back = jax.vjp(of_noise(_rules.tempered_softmax), noise, l, t)
    close(value, z, rtol=1e-12, atol=1e-300)
    _, dl, dt = back(g)
    close(dl, J(z) @ g / temperature, rtol=1e-9, atol=1e-14)
    close(dt, -(J(z) @ g) @ finite / temperature, rtol=1e-9)
    value, back = jax.vjp(of_noise(_rules.tempered_log_softmax), noise, l, t)
    close(value, log_softmax(x), rtol=1e-12)
    _, dl, dt = back(g)
    live = np.isfinite(x)
    jacobian = (np.eye(classes) - np.outer(z, np.ones(classes)))[:, live]
    h = np.where(live, jacobian @ g[live], 0)
    close(dl, h / temperature, rtol=1e-9, atol=1e-14)
    close(dt, -h @ finite / temperature, rtol=1e-9)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_straight_through_gumbel_softmax_rule(temperature):
    noise = np.array([0.1, 2.0, -0.3])
    y = softmax((C3 + noise) / temperature)
    z, back = jax.vjp(of_noise(_rules.tempered_one_hot), noise, C3, temperature)
    assert np.array_equal(z, D[1])
    _, dl, dt = back(G3)
    close(dl, J(y) @ G3 / temperature, rtol=1e-12)
    assert dt == 0


def test_decoupled_forward_temperature():
    """Oracle: the reference, and d/dt of E[f] at equal temperatures, exact for linear f."""
    dl, dforward, _ = rule(hard_rule(categorical._decoupled_rule), D[0], C3, G3, HALF, TWO)
    close(dforward, -0.579396854, rtol=1e-8)
    logits = np.array([0.2, -np.inf, 0.7])
    *_, dforward, _ = rule(hard_rule(categorical._decoupled_rule), D[0], logits, G3, TWO, TWO)
    value = lambda t: softmax(logits / t) @ G3
    close(dforward, (value(2 + 1e-6) - value(2 - 1e-6)) / 2e-6, rtol=1e-8)


ORACLES = [  # core, hyperparameters, class, the reference's cotangent for g = G3
    ("straight_through", (ONE,), 0, (0.198568490, -0.246500294, 0.047931804)),
    ("straight_through", (TWO,), 0, (0.142583014, -0.212347020, 0.069764006)),
    ("zgr", (), 0, (0.292880132, -0.153153987, -0.139726145)),
    ("zgr", (), 1, (0.508489144, -1.207119868, 0.698630724)),
    ("zgr", (), 2, (0.084748191, -0.127628323, 0.042880132)),
    ("reinmax", (ONE,), 1, (0.508489144, -1.207119868, 0.698630724)),
    ("reinmax", (TWO,), 0, (0.447213215, -0.379695110, -0.067518105)),
    ("reinmax", (TWO,), 1, (0.572803281, -1.185182427, 0.612379146)),
    ("reinmax", (TWO,), 2, (0.131549521, -0.331262071, 0.199712550)),
    ("decoupled_straight_through", (HALF, TWO), 1, (0.142583014, -0.212347020, 0.069764006)),
    ("gapped_straight_through", (ONE, ONE), 0, (0.304457382, -0.297833292, -0.006624090)),
    ("gapped_straight_through", (ONE, ONE), 1, (0.388768942, -0.671567105, 0.282798163)),
    ("gapped_straight_through", (ONE, ONE), 2, (0.160364762, -0.273817855, 0.113453093)),
    ("gapped_straight_through", (HALF, ONE), 1, (0.514260771, -0.922014564, 0.407753792)),
]


@pytest.mark.parametrize("name, hyperparameters, i, cotangent", ORACLES)
def test_rule_oracles(name, hyperparameters, i, cotangent):
    close(rule(HARD[name][0], D[i], C3, G3, *hyperparameters)[0], cotangent, rtol=2e-8)


EXPECTED = [  # the reference's expected gradients
    ("zgr", (), "quadratic", (0.253316576, -0.000279507, -0.253037068)),
    ("zgr", (), "exp", (0.356077996, -0.130966012, -0.225111985)),
    ("straight_through", (ONE,), "quadratic", (0.199343797, 0.038205495, -0.237549292)),
    ("straight_through", (ONE,), "exp", (0.320708334, -0.169562937, -0.151145397)),
    ("straight_through", (ONE,), "linear", (0.198568490, -0.246500294, 0.047931804)),
    ("reinmax", (ONE,), "quadratic", (0.253316576, -0.000279507, -0.253037068)),
    ("reinmax", (TWO,), "quadratic", (0.239704316, 0.028088680, -0.267792996)),
    ("reinmax", (TWO,), "exp", (0.415787195, -0.285373610, -0.130413586)),
    ("reinmax", (TWO,), "linear", (0.2836104, -0.4348680, 0.1512576)),
    ("gapped_straight_through", (ONE, ONE), "quadratic", (0.185620663, 0.026715904, -0.212336567)),
    ("gapped_straight_through", (ONE, ONE), "linear", (0.232531791, -0.322570170, 0.090038379)),
]


@pytest.mark.parametrize("name, hyperparameters, f, gradient", EXPECTED)
def test_expected_gradients(name, hyperparameters, f, gradient):
    """Oracle: every class, weighted by its probability."""
    close(expected(HARD[name][0], SLOPES[f], *hyperparameters), gradient, rtol=5e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["zgr", "reinmax"])
def test_second_order_rules_are_exact_on_quadratics_of_each_variable(name):
    """Oracle: all states of three variables; f quadratic in each, with a product of all."""
    rng = np.random.default_rng(1)
    Q, b, logits = rng.normal(size=(12, 12)), rng.normal(size=12), rng.normal(size=(3, 4))
    f = lambda z: z.ravel() @ Q @ z.ravel() + b @ z.ravel() + z[0, 0] * z[1, 1] * z[2, 2]
    family = categorical.family
    states = family.support(logits)
    log_p = jax.jit(jax.vmap(family.log_prob, (0, None)))
    exact = jax.grad(lambda l: jnp.exp(log_p(states, l)) @ jax.vmap(f)(states))(logits)
    core, *_ = HARD[name]
    one = (ONE,) * (name == "reinmax")
    estimates = jax.vmap(jax.grad(lambda l, d: f(core(d, l, *one))), (None, 0))(logits, states)
    mean = jnp.tensordot(jnp.exp(log_p(states, logits)), estimates, 1)
    close(mean, exact, rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------------------------- Gumbel-Rao


@pytest.mark.parametrize("t", [0.7, 100.0])
@pytest.mark.parametrize("dtype, rtol, atol", [("float64", 1e-11, 1e-15), ("float32", 1e-5, 1e-7)])
def test_gumbel_rao_rule_is_its_noises_mean(dtype, rtol, atol, t):
    """The rule at one key against NumPy on the very noise that it redraws, also where a class's
    probability is 0 in float32 and its logarithm counts."""
    key = jax.random.key(3)
    logits = np.array([0.2, -np.inf, 0.7, -1.0, -150.0])
    possible = 0, 2, 3, 4
    g = np.array([1.0, 5.0, -2.0, 0.5, 3.0])
    L, G, T = (jnp.asarray(x, dtype) for x in (logits, g, t))
    for i in possible:
        d = np.eye(5, dtype=dtype)[i]
        back = pullback(
            lambda l, d=d: hard_rule(functools.partial(categorical._gumbel_rao_rule, 6))(
                d, l, T, key
            ),
            L,
        )
        jacobians = []
        for k in jax.random.split(key, 6):
            E = np.exp(-np.asarray(_noise.gumbel(k, (5,), jnp.dtype(dtype)), float))
            x = np.full(5, -np.inf)
            for c in possible:
                rate = np.exp(log_softmax(logits)[c])
                x[c] = -np.log(E[i]) if c == i else -np.log(E[i] + E[c] / rate)
            jacobians.append(J(softmax(x / t)) / t)
        close(back(G)[0], np.mean(jacobians, axis=0) @ g, rtol=rtol, atol=atol)
        assert np.std(jacobians) > 0.01 / max(1, t)
        assert len(np.unique(jacobians, axis=0)) == 6


@pytest.mark.parametrize("i", range(3))
def test_conditional_draw_has_the_law_of_rejection(i):
    """Oracle: unconditional draws, kept where the arg-max is i; each entry and a difference."""
    rng = np.random.default_rng(4)
    x = log_softmax(C3) + rng.gumbel(size=(600_000, 3))
    kept = x[x.argmax(-1) == i]
    d, logits = (np.broadcast_to(row, (100_000, 3)) for row in (D[i], C3))
    ours = np.asarray(categorical._gumbel_given_class(rng.exponential(size=d.shape), d, logits))
    assert np.all(ours.argmax(-1) == i)
    for statistic in (*np.eye(3), np.array([1.0, -1.0, 0.0])):
        assert stats.ks_2samp(kept @ statistic, ours @ statistic).pvalue > SIGNIFICANCE


@pytest.mark.once
@pytest.mark.parametrize(
    "temperature, mean, error",
    [(0.5, (0.20721, 0.01605, -0.22326), 1.1e-4), (1.0, (0.15189, 0.02231, -0.17421), 7e-5)],
)
def test_gumbel_estimators_have_one_expectation(temperature, mean, error):
    """Oracle: the reference's Monte Carlo mean; STGS, and Gumbel-Rao at 1 and 20 noises."""
    logits = np.broadcast_to(C3, (100_000, 3))
    f = lambda z: jnp.sum((z @ A) * z) / 2 + jnp.sum(z @ B)
    deviations = {}
    for num_noise in (None, 1, 20):
        if num_noise is None:
            sampler = categorical.straight_through_gumbel_softmax
        else:
            sampler = functools.partial(categorical.gumbel_rao, num_noise=num_noise)
        draw = functools.partial(sampler, jax.random.key(5), temperature=temperature)
        grads = np.asarray(jax.jit(jax.grad(lambda l, draw=draw: f(draw(l))))(logits))
        own = grads.std(0) / np.sqrt(len(grads))
        assert np.all(np.abs(grads.mean(0) - mean) < 5.5 * np.hypot(own, error)), num_noise
        deviations[num_noise] = grads.std()
    assert deviations[20] < deviations[1] * 0.95


def test_gumbel_rao_tends_to_zgr():
    """Oracle: the zgr oracle of the reference, whose own run had 0.299 at temperature 0.003."""
    logits, d = np.broadcast_to(C3, (100_000, 3)), np.broadcast_to(D[0], (100_000, 3))
    back = pullback(
        lambda l: hard_rule(functools.partial(categorical._gumbel_rao_rule, 20))(
            d, l, 0.003, jax.random.key(6)
        ),
        logits,
    )
    grads = np.asarray(back(np.broadcast_to(G3, logits.shape))[0])
    error = grads.std(0) / np.sqrt(len(grads))
    zgr = np.array([0.292880132, -0.153153987, -0.139726145])
    assert np.all(np.abs(grads.mean(0) - zgr) < 5.5 * error + 1e-3)


# ----------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [2, 6, 16, 17, 40])
def test_the_draw_has_its_law(classes, dtype):
    """Chi-squared on both ways to invert, with masks; classes too rare for it are one."""
    logits = np.random.default_rng(classes).normal(size=classes) * 1.5
    masked = np.arange(classes) % 5 == 4
    logits = jnp.asarray(np.where(masked, -np.inf, logits), dtype)
    z = np.asarray(categorical.sample(jax.random.key(7), logits, shape=(200_000,)), float)
    assert set(np.unique(z)) == {0.0, 1.0} and np.all(z.sum(-1) == 1)
    check_law(z.sum(0), softmax(np.asarray(logits, float)))


def check_law(counts, p):
    assert np.all(counts[p == 0] == 0)
    common = p * counts.sum() >= 5
    group = lambda x: np.append(x[common], x[~common].sum())
    observed, share = group(counts), group(p)
    keep = share > 0
    assert stats.chisquare(observed[keep], share[keep] * counts.sum()).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("classes", [2, 5, 16, 17, 1000])
def test_the_draw_at_every_uniform(classes):
    """Oracle: searchsorted on float64 sums, at the ends, near the steps and between them."""
    rng = np.random.default_rng(8)
    logits = rng.normal(size=classes) * 2
    logits[rng.random(classes) < 0.3] = -np.inf
    logits[0] = 0.0
    cumulative = np.cumsum(softmax(logits))
    last = np.flatnonzero(logits > -np.inf)[-1]
    u = np.concatenate([[0, 1 - 2**-53], rng.random(200)])
    index = np.minimum(np.searchsorted(cumulative, u * cumulative[-1], side="right"), last)
    away = np.min(np.abs(u[:, None] - cumulative / cumulative[-1]), axis=-1) > 1e-14
    d = categorical._draw_from(u[:, None], np.broadcast_to(logits, (202, classes)))
    assert np.array_equal(np.argmax(d, -1)[away], index[away])
    assert np.all(np.asarray(d)[:, logits == -np.inf] == 0) and np.all(np.sum(d, -1) == 1)


@pytest.mark.parametrize("classes", [3, 30])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_draw_at_the_ends_is_never_masked(classes, dtype):
    """1 - 2^-24 in float32, with the last classes masked: rounding must not pass the total; and 0,
    with the first ones masked."""
    logits = np.random.default_rng(9).normal(size=(20_000, classes)).astype(dtype) * 3
    for end, masked in ((1 - np.finfo(dtype).epsneg, slice(-2, None)), (0, slice(2))):
        u, l = np.full((20_000, 1), end, dtype), logits.copy()
        l[:, masked] = -np.inf
        d = np.asarray(categorical._draw_from(u, l))
        assert np.all(d.sum(-1) == 1) and np.all(d[:, masked] == 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_draw_at_the_steps_is_never_masked(dtype):
    """At the sums of 3,000 probabilities, taken in parallel: some rise at a masked class."""
    rng = np.random.default_rng(11)
    masked = rng.random(3000) < 0.1
    logits = np.where(masked, -np.inf, rng.normal(size=3000)).astype(dtype)
    sums = np.asarray(jnp.cumsum(jax.nn.softmax(logits)))
    u = (sums[:-1] / sums.max())[masked[1:]]
    u = np.concatenate([u, *(np.nextafter(u, np.array(end, dtype)) for end in (0, 1))])
    d = categorical._draw_from(u[u < 1, None], np.broadcast_to(logits, (np.sum(u < 1), 3000)))
    assert np.all(np.asarray(d)[:, masked] == 0)


HARD_SAMPLERS = [
    categorical.straight_through,
    categorical.reinmax,
    categorical.zgr,
    categorical.gumbel_rao,
    categorical.decoupled_straight_through,
    categorical.gapped_straight_through,
]


def test_one_key_is_one_draw():
    logits = np.random.default_rng(10).normal(size=(500, 4))
    draw = categorical.sample(KEY, logits)
    for sampler in HARD_SAMPLERS:
        assert np.array_equal(sampler(KEY, logits), draw)
    cold = categorical.decoupled_straight_through(KEY, logits, forward_temperature=0.3)
    assert np.array_equal(cold, categorical.sample(KEY, logits / 0.3)) and np.any(cold != draw)
    assert not np.array_equal(categorical.straight_through_gumbel_softmax(KEY, logits), draw)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_gumbel_laws(temperature, dtype):
    """Arg-max by chi-squared for both; for C = 2 the relaxed entry is a relaxed bit."""
    logits = jnp.asarray([0.2, -1.0, 0.7, -np.inf], dtype)
    p = softmax(np.asarray(logits, float))
    args = dict(temperature=temperature, shape=(200_000,))
    hard = categorical.straight_through_gumbel_softmax(jax.random.key(11), logits, **args)
    check_law(np.asarray(hard, float).sum(0), p)
    u = np.asarray(categorical.log_gumbel_softmax(jax.random.key(12), logits, **args), float)
    check_law(np.bincount(u.argmax(-1), minlength=4), p)
    if dtype in ("float32", "float64"):
        law = stats.logistic((logits[0] - logits[2]) / temperature, 1 / temperature)
        assert stats.kstest(u[:, 0] - u[:, 2], law.cdf).pvalue > SIGNIFICANCE
        z = categorical.gumbel_softmax(jax.random.key(12), logits, **args)
        close(z, np.exp(u), rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gumbel_noise(dtype):
    """Kolmogorov-Smirnov on 2e6 draws, the ends of the range, and float64's formula."""
    noise = np.asarray(_noise.gumbel(jax.random.key(13), (2_000_000,), jnp.dtype(dtype)), float)
    assert stats.kstest(noise, stats.gumbel_r.cdf).pvalue > SIGNIFICANCE
    bits = 32 if dtype == "float32" else 64
    words = np.array([0, 2**bits - 1, *(2**k for k in range(3, bits))], f"uint{bits}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_noise, "_words", lambda *a: (jnp.asarray(words), bits))
        actual = np.asarray(_noise.gumbel(None, None, jnp.dtype(dtype)), float)
    u, v = ((w.astype(np.longdouble) + 0.5) / np.longdouble(2) ** bits for w in (~words, words))
    exact = -np.log(np.where(v < 0.5, -np.log1p(-np.minimum(v, 0.5)), -np.log(u)))
    close(actual, exact.astype(float), rtol=4 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)


def test_noise_is_independent():
    """Pearson correlation of rows and draws of one call, within 5 standard errors of 0."""
    args = dict(temperature=1.0, shape=(100_000, 3))
    u = np.asarray(categorical.log_gumbel_softmax(jax.random.key(14), np.zeros((3, 4)), **args))
    x = (u[..., :-1] - u[..., -1:])[:, :, 0]
    correlation = np.corrcoef(x, rowvar=False) - np.eye(3)
    draws = [np.corrcoef(x[1:, i], x[:-1, i])[0, 1] for i in range(3)]
    hard = np.asarray(categorical.zgr(jax.random.key(15), np.zeros((3, 2)), shape=(100_000, 3)))
    bits = np.corrcoef(hard[..., 0], rowvar=False) - np.eye(3)
    assert max(np.abs(a).max() for a in (correlation, draws, bits)) < 5 / np.sqrt(100_000)


# ------------------------------------------------------------------------------------ densities


def test_density_oracles():
    z = np.array([0.2, 0.5, 0.3])
    for t, value in ((0.5, -1.3400205143), (1.5, 0.2883522862)):
        close(categorical.gumbel_softmax_log_prob(z, C3, temperature=t), value, rtol=1e-9)
    u = np.log(z)
    close(categorical.log_gumbel_softmax_log_prob(u, C3, temperature=0.5), -4.8465784116, rtol=1e-9)
    masked = np.append(C3, -np.inf)
    z0, u0 = np.append(z, 0), np.append(u, -np.inf)
    close(
        categorical.gumbel_softmax_log_prob(z0, masked, temperature=0.5), -1.3400205143, rtol=1e-9
    )
    close(
        categorical.log_gumbel_softmax_log_prob(u0, masked, temperature=0.5),
        -4.8465784116,
        rtol=1e-9,
    )
    for bad in (np.array([0.2, 0.5, 0.2, 0.1]), np.array([-0.1, 0.8, 0.3, 0.0])):
        assert categorical.gumbel_softmax_log_prob(bad, masked, temperature=0.5) == -np.inf
    assert categorical.gumbel_softmax_log_prob(np.ones(1), np.ones(1), temperature=0.5) == 0


def test_two_classes_are_a_relaxed_bit():
    z = np.linspace(0.05, 0.95, 19)
    pair = np.stack([z, 1 - z], -1)
    logits = np.array([0.3, -0.9])
    actual = categorical.gumbel_softmax_log_prob(pair, logits, temperature=0.7)
    close(actual, bernoulli.concrete_log_prob(z, np.full(19, 1.2), temperature=0.7), rtol=1e-10)


@pytest.mark.parametrize("temperature", [0.5, 1.5])
def test_densities_integrate_to_one(temperature):
    """Quadrature in the two log-ratios, where both densities are smooth."""
    density = jax.jit(
        jax.vmap(
            lambda a: jnp.exp(
                categorical.log_gumbel_softmax_log_prob(
                    jax.nn.log_softmax(jnp.append(a, 0.0)), C3, temperature=temperature
                )
            )
        )
    )
    grid = np.arange(-40, 40, 0.1) / temperature
    points = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    log_space = np.asarray(density(points))
    cell = (0.1 / temperature) ** 2
    assert log_space.sum() * cell == pytest.approx(1, abs=1e-4)
    z = softmax(np.concatenate([points, np.zeros((len(points), 1))], -1), axis=-1)
    near = z.min(-1) > 1e-250
    simplex = categorical.gumbel_softmax_log_prob(
        z[near], np.broadcast_to(C3, (near.sum(), 3)), temperature=temperature
    )
    total = np.exp(np.asarray(simplex) + np.log(z[near]).sum(-1)).sum() * cell
    assert total == pytest.approx(1, abs=1e-4)


def test_density_gradients():
    """Oracle: the formula in NumPy, by central differences in all three arguments."""

    def log_prob(z, l, t):
        n, a = len(z), l - t * np.log(z)
        return np.log(2) + (n - 1) * np.log(t) + np.sum(a - np.log(z)) - n * logsumexp(a)

    z, t = np.array([0.2, 0.5, 0.3]), 0.7
    grads = jax.grad(
        lambda z, l, t: categorical.gumbel_softmax_log_prob(z, l, temperature=t), (0, 1, 2)
    )(z, C3, t)
    step = 1e-6
    for i in range(3):
        e = np.eye(3)[i] * step
        close(grads[0][i], (log_prob(z + e, C3, t) - log_prob(z - e, C3, t)) / 2 / step, rtol=1e-6)
        close(grads[1][i], (log_prob(z, C3 + e, t) - log_prob(z, C3 - e, t)) / 2 / step, rtol=1e-6)
    close(grads[2], (log_prob(z, C3, t + step) - log_prob(z, C3, t - step)) / 2 / step, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0.01, 0.1, 0.5, 2.0])
def test_own_draws_have_a_finite_density(dtype, temperature):
    logits = jnp.asarray([[5.0, -3.0, 0.1, -np.inf], [0.0, 0.0, 20.0, 1.0]], dtype)
    z = categorical.gumbel_softmax(
        jax.random.key(16), logits, temperature=temperature, shape=(2000, 2)
    )
    log_prob = lambda z, l: categorical.gumbel_softmax_log_prob(z, l, temperature=temperature)
    assert bool(jnp.all(jnp.isfinite(log_prob(z, logits))))
    gradients = jax.grad(lambda *a: jnp.sum(log_prob(*a).astype(float)), (0, 1))(z, logits)
    assert all(bool(jnp.all(jnp.isfinite(gradient))) for gradient in gradients[1:])
    if dtype != "float16":  # whose range the logarithms leave
        u = categorical.log_gumbel_softmax(
            jax.random.key(16), logits, temperature=temperature, shape=(2000, 2)
        )
        density = categorical.log_gumbel_softmax_log_prob(u, logits, temperature=temperature)
        assert bool(jnp.all(jnp.isfinite(density)))


def test_log_prob_and_family():
    logits = np.array([[0.2, -1.0, -np.inf], [1e4, 0.0, -1e4]])
    for i, j in itertools.product(range(3), repeat=2):
        x = np.stack([D[i], D[j]])
        expected = log_softmax(logits, axis=-1)[[0, 1], [i, j]]
        close(categorical.log_prob(x, logits), expected, rtol=1e-12)
        close(categorical.family.log_prob(x, logits), expected.sum(), rtol=1e-12)
        gradient = jax.grad(lambda l, x=x: categorical.family.log_prob(x, l))(logits)
        if np.all(np.isfinite(expected)):
            close(gradient, x - softmax(logits, axis=-1), rtol=1e-12, atol=1e-15)
        assert gradient[0, 2] == 0
    assert categorical.log_prob(D[0].astype(int), C3) == categorical.log_prob(D[0], C3)
    support = categorical.family.support(np.zeros((2, 3)))
    assert support.shape == (9, 2, 3) and len(np.unique(support.reshape(9, 6), axis=0)) == 9
    p = np.exp([categorical.family.log_prob(x, logits) for x in support])
    assert p.sum() == pytest.approx(1, abs=1e-12)
    close(np.tensordot(p, support, 1), categorical.family.mean(logits), rtol=1e-12, atol=1e-300)
    assert np.array_equal(categorical.family.support(np.zeros(3)), D)
    with pytest.raises(ValueError, match="7 variables of 8 values"):
        categorical.family.support(np.zeros((7, 8)))


# ---------------------------------------------------------------------------- second derivatives


def test_second_derivatives_apply_the_rule_to_d():
    """Oracle: central differences in float64 of the stated rule, with d's differential put in.

    With f(z) = <w, z>^2 / 2 the gradient is M(d, l)^T w <w, d>, M the stated Jacobian; its total
    derivative is the partial one in l plus the partial one in d through M itself.
    """
    w, step = np.array([0.7, -1.1, 0.4]), 1e-6
    for name in ("straight_through", "decoupled_straight_through", "reinmax", "zgr"):
        core, hyperparameters, jacobian = HARD[name]
        f = lambda l, core=core, h=hyperparameters: (core(D[1], l, *h) @ w) ** 2 / 2
        second = jax.jacrev(jax.grad(f))(C3)
        gradient = lambda d, l, jacobian=jacobian: jacobian(d, l).T @ w * (w @ d)
        M = jacobian(D[1], C3)
        for i in range(3):
            e = step * np.eye(3)[i]
            up = gradient(D[1] + M @ e, C3 + e)
            down = gradient(D[1] - M @ e, C3 - e)
            close(second[:, i], (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


def test_second_derivatives_of_rules_with_noise():
    """Oracle: as above, M a mean of J(softmax(x / t)) / t with dx/dl = 1, x of the noise or gap."""
    w, step, t, key = np.array([0.7, -1.1, 0.4]), 1e-6, HALF, jax.random.key(4)
    noise = np.array([0.1, 2.0, -0.3])  # whose largest is 1
    gumbel_rao = hard_rule(functools.partial(categorical._gumbel_rao_rule, 4))
    E = [_noise.exponential(k, (3,), jnp.dtype("float64")) for k in jax.random.split(key, 4)]
    rules = {
        "gapped": (
            lambda l: hard_rule(categorical._gapped_rule)(D[1], l, t, ONE),
            [np.where(D[1], C3.max(), np.minimum(C3, C3.max() - 1))],
        ),
        "gumbel_rao": (
            lambda l: gumbel_rao(D[1], l, t, key),
            [np.asarray(categorical._gumbel_given_class(e, D[1], C3)) for e in E],
        ),
        "straight_through_gumbel_softmax": (
            lambda l: of_noise(_rules.tempered_one_hot)(noise, l, t),
            [C3 + noise],
        ),
    }
    for rule, x in rules.values():
        M = lambda shift, x=x: np.mean([J(softmax((row + shift) / t)) / t for row in x], axis=0)
        second = jax.jacrev(jax.grad(lambda l, rule=rule: (rule(l) @ w) ** 2 / 2))(C3)
        for i in range(3):
            e = step * np.eye(3)[i]
            up, down = (M(s) @ w * (w @ (D[1] + M(0) @ s)) for s in (e, -e))
            close(second[:, i], (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "core", [of_noise(_rules.tempered_softmax), of_noise(_rules.tempered_log_softmax)]
)
def test_second_derivatives_of_relaxed_draws(core):
    """Oracle: central differences of the first derivatives, in logits and temperature."""
    noise = np.array([0.3, -0.2, 1.0])
    f = lambda a: jnp.sum(jnp.tanh(core(noise, a[:3], a[3]) * G3))
    a, step = np.append(C3, 0.6), 1e-5
    second = jax.jacrev(jax.grad(f))(a)
    for i in range(4):
        e = np.eye(4)[i] * step
        close(second[:, i], (jax.grad(f)(a + e) - jax.grad(f)(a - e)) / (2 * step), rtol=1e-6)


# ----------------------------------------------------------------------------------- the edges

SAMPLERS = [
    categorical.sample,
    categorical.gumbel_softmax,
    categorical.log_gumbel_softmax,
    categorical.straight_through_gumbel_softmax,
    *HARD_SAMPLERS,
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.__name__)
@pytest.mark.parametrize("classes", [3, 20])
def test_rows_without_a_law_are_nan(sampler, classes):
    """A row masked throughout, with a NaN, or with +inf; the row beside it is unharmed."""
    logits = np.zeros((4, classes))
    logits[0], logits[1, 0], logits[2, -1] = -np.inf, np.nan, np.inf
    z = np.asarray(sampler(KEY, jnp.asarray(logits)))
    assert np.all(np.isnan(z[:3]).any(-1)) and np.all(np.isfinite(z[3]))
    if sampler not in (categorical.gumbel_softmax, categorical.log_gumbel_softmax):
        assert np.all(np.isnan(z[:3]))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.__name__)
def test_one_rounding_at_the_end(sampler):
    """Oracle: the same call in float32, rounded: noise and arithmetic are no narrower."""
    for dtype in (jnp.bfloat16, jnp.float16):
        logits = jnp.linspace(-3, 3, 120).reshape(30, 4).astype(dtype)
        wide = sampler(KEY, logits.astype(jnp.float32))
        assert np.array_equal(sampler(KEY, logits), wide.astype(dtype))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.__name__)
def test_one_class(sampler):
    z, back = jax.vjp(lambda l: sampler(KEY, l), np.array([[0.3], [-5.0]]))
    assert np.array_equal(z, np.full((2, 1), float(sampler is not categorical.log_gumbel_softmax)))
    assert np.array_equal(back(jnp.ones((2, 1)))[0], np.zeros((2, 1)))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: categorical.reinmax(KEY, np.arange(3)), TypeError, "logits: got int"),
        (lambda: categorical.reinmax(KEY, 0.5), ValueError, "logits: got"),
        (lambda: categorical.reinmax(KEY, np.zeros((3, 0))), ValueError, "logits: got"),
        (lambda: categorical.zgr(KEY, np.ones((2, 3)), shape=(3,)), ValueError, "shape: got"),
        (lambda: categorical.log_prob(np.ones(2), np.ones(3)), ValueError, "x: got shape"),
        (lambda: categorical.log_prob(1.0, np.arange(3)), TypeError, "logits: got int"),
        (
            lambda: categorical.gumbel_softmax_log_prob(np.ones(2), C3, temperature=1),
            ValueError,
            "z: got shape",
        ),
        (lambda: categorical.gapped_straight_through(KEY, C3, gap=-1), ValueError, "gap: got -1"),
        (
            lambda: categorical.decoupled_straight_through(KEY, C3, forward_temperature=0),
            ValueError,
            "forward_temperature: got 0",
        ),
        (
            lambda: categorical.reinmax(KEY, C3, temperature="hot"),
            TypeError,
            "temperature: got 'hot'",
        ),
        (lambda: categorical.reinmax(KEY, C3, temperature=1j), TypeError, "temperature: got 1j"),
        (lambda: categorical.gumbel_rao(KEY, C3, num_noise=True), TypeError, "num_noise: got True"),
        (
            lambda: categorical.reinmax(KEY, np.zeros((2, 3)), temperature=np.ones(3)),
            ValueError,
            "temperature: got shape",
        ),
    ],
)
def test_errors_name_the_argument(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "need" in str(caught.value)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_bad_traced_temperature_gives_nan(bad):
    for sampler in (categorical.gumbel_softmax, categorical.reinmax, categorical.gumbel_rao):
        grad = jax.grad(lambda l, t, s=sampler: jnp.sum(s(KEY, l, temperature=t) * G3))
        assert np.all(np.isnan(grad(C3, jnp.asarray(bad, jnp.float64))))


def test_integration_by_scipy_agrees_with_the_grid():
    """One point of the simplex density by nested quadrature, apart from the grid above."""
    log_prob = jax.jit(
        lambda a, b: categorical.gumbel_softmax_log_prob(
            jnp.stack([a, b, 1 - a - b]), C3, temperature=1.5
        )
    )
    total, _ = integrate.dblquad(
        lambda b, a: np.exp(float(log_prob(a, b))), 0, 1, 0, lambda a: 1 - a, epsabs=1e-5
    )
    assert total == pytest.approx(1, abs=1e-4)
