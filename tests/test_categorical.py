"""The laws and rules of one of C classes, against closed forms, quadrature and enumeration."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, J, close, hard_rule, of_noise, pullback, with_slopes
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

log_prob_of_z = jax.jit(categorical.gumbel_softmax_log_prob)
log_prob_of_log_z = jax.jit(categorical.log_gumbel_softmax_log_prob)

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


@functools.partial(jax.jit, static_argnums=0)
def rule(name, d, logits, g, *hyperparameters):
    """The cotangents of logits and hyperparameters."""
    return pullback(lambda *a: HARD[name][0](d, *a), logits, *hyperparameters)(g)


def expected(name, slope, *hyperparameters):
    """E[rule] over the classes of C3."""
    p = softmax(C3)
    return sum(p[i] * rule(name, D[i], C3, slope(D[i]), *hyperparameters)[0] for i in range(3))


def thorough(*values):
    return pytest.param(*values, marks=pytest.mark.thorough)


# ---------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize(
    "logits",
    [[0.3, -1.2, 2.0], [0.0, -np.inf, 1.0], [1e4, 0.0, -1e4], [0.0], [1.5, -0.5]],
    ids=str,
)
def test_hard_rules_are_their_dense_jacobians(name, logits):
    core, hyperparameters, jacobian = HARD[name]
    logits, classes = np.array(logits), len(logits)
    # An infinite cotangent in a masked class, such as that of log z, stays there.
    cotangents = np.stack([*np.eye(classes), np.where(logits == -np.inf, np.inf, 1.0)])
    for i in np.flatnonzero(logits > -np.inf):
        d = np.eye(classes)[i]
        z, (gradients, *slopes) = dense(name, d, logits, cotangents, *hyperparameters)
        assert np.array_equal(z, d)
        rows = gradients[:-1]
        close(rows, jacobian(d, logits), rtol=1e-11, atol=1e-15)
        assert np.all(np.asarray(rows)[:, logits == -np.inf] == 0)
        assert np.all(np.isfinite(gradients[-1]))
        for k, slope in enumerate(slopes):
            assert (name, k) == ("decoupled_straight_through", 0) or np.all(slope == 0)


@functools.partial(jax.jit, static_argnums=0)
def dense(name, d, logits, cotangents, *hyperparameters):
    """The draw, and its pullback of every cotangent."""
    z, back = jax.vjp(lambda *a: HARD[name][0](d, *a), logits, *hyperparameters)
    return z, jax.vmap(back)(cotangents)


def test_rules_by_batch_are_rules_by_row():
    """One (2, 3) batch with a temperature a row against its rows."""
    logits, d, g = np.stack([C3, -C3]), D[:2], np.stack([G3, G3[::-1]])
    t = np.array([[0.5], [2.0]])
    for name in ("straight_through", "reinmax"):
        both = rule(name, d, logits, g, t)[0]
        for i in range(2):
            close(both[i], rule(name, d[i], logits[i], g[i], t[i, 0])[0], rtol=1e-13)
    noise = np.array([[0.1, 0.5, -0.3], [1.0, 0.2, 0.0]])
    for core in (of_noise(_rules.tempered_softmax), of_noise(_rules.tempered_log_softmax)):
        back = jax.jit(lambda noise, *args, core=core: pullback(core, noise, *args[:-1])(args[-1]))
        _, dl, dt = back(noise, logits, t, g)
        assert dt.shape == (2, 1)
        for i in range(2):
            _, row_dl, row_dt = back(noise[i], logits[i], t[i, 0], g[i])
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
    _, dforward, _ = rule("decoupled_straight_through", D[0], C3, G3, HALF, TWO)
    close(dforward, -0.579396854, rtol=1e-8)
    logits = np.array([0.2, -np.inf, 0.7])
    _, dforward, _ = rule("decoupled_straight_through", D[0], logits, G3, TWO, TWO)
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
    close(rule(name, D[i], C3, G3, *hyperparameters)[0], cotangent, rtol=2e-8)


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
    close(expected(name, SLOPES[f], *hyperparameters), gradient, rtol=5e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["zgr", "reinmax"])
def test_second_order_rules_are_exact_on_quadratics_of_each_variable(name):
    """Oracle: all states of three variables; f quadratic in each, with a product of all."""
    rng = np.random.default_rng(1)
    Q, b, logits = rng.normal(size=(12, 12)), rng.normal(size=12), rng.normal(size=(3, 4))
    f = lambda z: z.ravel() @ Q @ z.ravel() + b @ z.ravel() + z[0, 0] * z[1, 1] * z[2, 2]
    family = categorical.family
    x = family.support(logits)
    core, *_ = HARD[name]
    one = (ONE,) * (name == "reinmax")

    @jax.jit
    def both(logits):
        p = lambda l: jnp.exp(jax.vmap(family.log_prob, (0, None))(x, l))
        estimate = jax.vmap(jax.grad(lambda l, d: f(core(d, l, *one))), (None, 0))
        mean = jnp.tensordot(p(logits), estimate(logits, x), 1)
        return mean, jax.grad(lambda l: p(l) @ jax.vmap(f)(x))(logits)

    close(*both(logits), rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------------------------- Gumbel-Rao


@functools.partial(jax.jit, static_argnums=0)
def gumbel_rao_pullback(num_noise, key, d, logits, temperature, g):
    core = hard_rule(functools.partial(categorical._gumbel_rao_rule, num_noise))
    return pullback(lambda l: core(d, l, temperature, key), logits)(g)[0]


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
    noises = [
        np.exp(-np.asarray(_noise.gumbel(k, (5,), jnp.dtype(dtype)), float))
        for k in jax.random.split(key, 6)
    ]
    for i in possible:
        actual = gumbel_rao_pullback(6, key, np.eye(5, dtype=dtype)[i], L, T, G)
        jacobians = []
        for E in noises:
            x = np.full(5, -np.inf)
            for c in possible:
                rate = np.exp(log_softmax(logits)[c])
                x[c] = -np.log(E[i]) if c == i else -np.log(E[i] + E[c] / rate)
            jacobians.append(J(softmax(x / t)) / t)
        close(actual, np.mean(jacobians, axis=0) @ g, rtol=rtol, atol=atol)
        assert np.std(jacobians) > 0.01 / max(1, t)
        assert len(np.unique(jacobians, axis=0)) == 6


@pytest.mark.parametrize("i", [0, thorough(1), thorough(2)])
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
    "n, temperature, mean, error",
    [
        (20_000, 0.5, (0.20721, 0.01605, -0.22326), 1.1e-4),
        thorough(100_000, 0.5, (0.20721, 0.01605, -0.22326), 1.1e-4),
        thorough(100_000, 1.0, (0.15189, 0.02231, -0.17421), 7e-5),
    ],
)
def test_gumbel_estimators_have_one_expectation(n, temperature, mean, error):
    """Oracle: the reference's Monte Carlo mean; STGS, and Gumbel-Rao at 1 and 20 noises."""
    logits = np.broadcast_to(C3, (n, 3))
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


@pytest.mark.parametrize("n", [20_000, thorough(100_000)])
def test_gumbel_rao_tends_to_zgr(n):
    """Oracle: the zgr oracle of the reference, whose own run had 0.299 at temperature 0.003."""
    logits, d, g = (np.broadcast_to(x, (n, 3)) for x in (C3, D[0], G3))
    grads = np.asarray(gumbel_rao_pullback(20, jax.random.key(6), d, logits, 0.003, g))
    error = grads.std(0) / np.sqrt(len(grads))
    zgr = np.array([0.292880132, -0.153153987, -0.139726145])
    assert np.all(np.abs(grads.mean(0) - zgr) < 5.5 * error + 1e-3)


# ----------------------------------------------------------------------------------------- laws


OFTEN = [(classes, "float32") for classes in (6, 40)]  # by one way to invert, and by the other
RARELY = [(n, dtype) for n in (2, 6, 16, 17, 40) for dtype in DTYPES if (n, dtype) not in OFTEN]


@pytest.mark.parametrize("classes, dtype", [*OFTEN, *(thorough(*case) for case in RARELY)])
def test_the_draw_has_its_law(classes, dtype):
    """Chi-squared on both ways to invert, with masks; classes too rare for it are one."""
    logits = np.random.default_rng(classes).normal(size=classes) * 1.5
    masked = np.arange(classes) % 5 == 4
    logits = jnp.asarray(np.where(masked, -np.inf, logits), dtype)
    draw = jax.jit(functools.partial(categorical.sample, shape=(200_000,)))
    z = np.asarray(draw(jax.random.key(7), logits), float)
    assert np.all((z == 0) | (z == 1)) and np.all(z.sum(-1) == 1)
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
    other = categorical.straight_through_gumbel_softmax
    *draws, another = jax.jit(lambda l: [f(KEY, l) for f in (*HARD_SAMPLERS, other)])(logits)
    assert all(np.array_equal(d, draw) for d in draws) and not np.array_equal(another, draw)
    cold = categorical.decoupled_straight_through(KEY, logits, forward_temperature=0.3)
    assert np.array_equal(cold, categorical.sample(KEY, logits / 0.3)) and np.any(cold != draw)


@pytest.mark.parametrize(
    "temperature, dtype",
    [
        (2.0, "float32"),
        *(thorough(0.1, dtype) for dtype in DTYPES),
        *(thorough(2.0, dtype) for dtype in DTYPES if dtype != "float32"),
    ],
)
def test_gumbel_laws(temperature, dtype):
    """Arg-max by chi-squared for both; for C = 2 the relaxed entry is a relaxed bit."""
    logits = jnp.asarray([0.2, -1.0, 0.7, -np.inf], dtype)
    p = softmax(np.asarray(logits, float))
    args = dict(temperature=temperature, shape=(200_000,))

    @jax.jit
    def draws(logits):
        key, other = jax.random.key(11), jax.random.key(12)
        return (
            categorical.straight_through_gumbel_softmax(key, logits, **args),
            categorical.log_gumbel_softmax(other, logits, **args),
            categorical.gumbel_softmax(other, logits, **args),
        )

    hard, u, z = (np.asarray(x, float) for x in draws(logits))
    check_law(hard.sum(0), p)
    check_law(np.bincount(u.argmax(-1), minlength=4), p)
    if dtype in ("float32", "float64"):
        law = stats.logistic((logits[0] - logits[2]) / temperature, 1 / temperature)
        assert stats.kstest(u[:, 0] - u[:, 2], law.cdf).pvalue > SIGNIFICANCE
        close(z, np.exp(u), rtol=2e-4, atol=1e-7)


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gumbel_noise(dtype):
    """Kolmogorov-Smirnov on 2e6 draws."""
    noise = np.asarray(_noise.gumbel(jax.random.key(13), (2_000_000,), jnp.dtype(dtype)), float)
    assert stats.kstest(noise, stats.gumbel_r.cdf).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gumbel_noise_is_its_formula(dtype, monkeypatch):
    """The ends of the range, and words of every size. Oracle: the formula in long double."""
    bits = 32 if dtype == "float32" else 64
    words = np.array([0, 2**bits - 1, *(2**k for k in range(3, bits))], f"uint{bits}")
    monkeypatch.setattr(_noise, "_words", lambda *a: (jnp.asarray(words), bits))
    actual = np.asarray(_noise.gumbel(None, None, jnp.dtype(dtype)), float)
    u, v = ((w.astype(np.longdouble) + 0.5) / np.longdouble(2) ** bits for w in (~words, words))
    exact = -np.log(np.where(v < 0.5, -np.log1p(-np.minimum(v, 0.5)), -np.log(u)))
    close(actual, exact.astype(float), rtol=4 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)


# ------------------------------------------------------------------------------------ densities


def test_density_oracles():
    z = np.array([0.2, 0.5, 0.3])
    for t, value in ((0.5, -1.3400205143), (1.5, 0.2883522862)):
        close(log_prob_of_z(z, C3, temperature=t), value, rtol=1e-9)
    u = np.log(z)
    close(log_prob_of_log_z(u, C3, temperature=0.5), -4.8465784116, rtol=1e-9)
    masked = np.append(C3, -np.inf)
    z0, u0 = np.append(z, 0), np.append(u, -np.inf)
    close(log_prob_of_z(z0, masked, temperature=0.5), -1.3400205143, rtol=1e-9)
    close(
        log_prob_of_log_z(u0, masked, temperature=0.5),
        -4.8465784116,
        rtol=1e-9,
    )
    for bad in (np.array([0.2, 0.5, 0.2, 0.1]), np.array([-0.1, 0.8, 0.3, 0.0])):
        assert log_prob_of_z(bad, masked, temperature=0.5) == -np.inf
    assert log_prob_of_z(np.ones(1), np.ones(1), temperature=0.5) == 0


def test_two_classes_are_a_relaxed_bit():
    z = np.linspace(0.05, 0.95, 19)
    pair = np.stack([z, 1 - z], -1)
    logits = np.array([0.3, -0.9])
    actual = log_prob_of_z(pair, logits, temperature=0.7)
    close(actual, bernoulli.concrete_log_prob(z, np.full(19, 1.2), temperature=0.7), rtol=1e-10)


@pytest.mark.parametrize("temperature", [0.5, 1.5])
def test_densities_integrate_to_one(temperature):
    """Quadrature in the two log-ratios, where both densities are smooth."""
    step = 0.25 / temperature  # the sum over an even grid converges exponentially
    grid = np.arange(-40 / temperature, 40 / temperature, step)
    points = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    log_z = log_softmax(np.concatenate([points, np.zeros((len(points), 1))], -1), axis=-1)
    C = np.broadcast_to(C3, log_z.shape)
    of_log = log_prob_of_log_z(log_z, C, temperature=temperature)
    assert np.sum(np.exp(of_log)) * step**2 == pytest.approx(1, abs=1e-4)
    near = log_z.min(-1) > -575
    of_z = log_prob_of_z(np.exp(log_z), C, temperature=temperature)
    total = np.sum(np.exp(np.asarray(of_z)[near] + log_z[near].sum(-1))) * step**2
    assert total == pytest.approx(1, abs=1e-4)


def test_density_gradients():
    """Oracle: the formula in NumPy, by central differences in all three arguments."""

    def log_prob(z, l, t):
        n, a = len(z), l - t * np.log(z)
        return np.log(2) + (n - 1) * np.log(t) + np.sum(a - np.log(z)) - n * logsumexp(a)

    z, t = np.array([0.2, 0.5, 0.3]), 0.7
    actual = lambda z, l, t: categorical.gumbel_softmax_log_prob(z, l, temperature=t)
    grads = jax.jit(jax.grad(actual, (0, 1, 2)))(z, C3, t)
    step = 1e-6
    for i in range(3):
        e = np.eye(3)[i] * step
        close(grads[0][i], (log_prob(z + e, C3, t) - log_prob(z - e, C3, t)) / 2 / step, rtol=1e-6)
        close(grads[1][i], (log_prob(z, C3 + e, t) - log_prob(z, C3 - e, t)) / 2 / step, rtol=1e-6)
    close(grads[2], (log_prob(z, C3, t + step) - log_prob(z, C3, t - step)) / 2 / step, rtol=1e-6)


def test_log_prob():
    """Every pair of classes of two rows, with a mask and far logits."""
    logits = np.array([[0.2, -1.0, -np.inf], [1e4, 0.0, -1e4]])
    both = with_slopes(categorical.log_prob)
    for i, j in itertools.product(range(3), repeat=2):
        x = np.stack([D[i], D[j]])
        value, _, slope = both(x, logits)
        expected = log_softmax(logits, axis=-1)[[0, 1], [i, j]]
        close(value, expected, rtol=1e-12)
        if np.all(np.isfinite(expected)):
            close(slope, x - softmax(logits, axis=-1), rtol=1e-12, atol=1e-15)
        assert slope[0, 2] == 0
    assert categorical.log_prob(D[0].astype(int), C3) == categorical.log_prob(D[0], C3)


LAWS = np.array(
    [[0.2, -1.0, 0.7, 0.0], [3, -40, 0, 1], [0.5, -np.inf, 0, 1], [1e4, 0, -1e4, -np.inf]]
)


def test_entropy():
    """Oracle: scipy's; the slope is -p (log p + entropy), and 0 at a mask."""
    value, slope = with_slopes(categorical.entropy)(LAWS)
    p, log_p = softmax(LAWS, axis=-1), log_softmax(LAWS, axis=-1)
    close(value, stats.entropy(p, axis=-1), rtol=1e-12)
    terms = np.where(p > 0, log_p + np.asarray(value)[:, None], 0)
    close(slope, -p * terms, rtol=1e-9, atol=1e-15)
    one = categorical.entropy(np.array([[0.7], [-300]]))
    assert np.array_equal(one, [0, 0])
    second = jax.jit(jax.hessian(lambda l: categorical.entropy(l)))(LAWS[2])
    assert np.all(np.isfinite(second)) and np.all(second[1] == 0) and np.all(second[:, 1] == 0)


def test_kl():
    """Oracle: scipy's; the slopes are q (log q - log p - kl) and p - q."""
    q = np.concatenate([LAWS, LAWS[:3]])
    p = np.concatenate([np.roll(LAWS[:2], 1, 0), LAWS[:1], LAWS[3:], LAWS[:3]])
    value, dq, dp = with_slopes(categorical.kl)(q, p)
    P, Q = softmax(p, axis=-1), softmax(q, axis=-1)
    close(value, stats.entropy(Q, P, axis=-1), rtol=1e-9, atol=1e-14)
    ratio = np.where(Q > 0, log_softmax(q, axis=-1), 0) - np.where(
        Q > 0, log_softmax(p, axis=-1), 0
    )
    close(dq, Q * (ratio - np.asarray(value)[:, None]), rtol=1e-9, atol=1e-14)
    close(dp, P - Q, rtol=1e-9, atol=1e-14)
    assert np.all(dq[np.isinf(q)] == 0) and np.all(dp[np.isinf(p)] == 0)


def test_kl_where_q_may_be_what_p_never_is():
    """Infinite, but not for a class that both have masked, nor for one that q alone has."""
    masks = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], bool)
    law = lambda masked: np.where(masked, -np.inf, [0.3, -1.0])
    of = lambda q, p: categorical.kl(np.append(law(q), 0.5), np.append(law(p), 0.5))
    actual = [[np.isposinf(of(q, p)) for p in masks] for q in masks]
    assert np.array_equal(actual, [[np.any(p & ~q) for p in masks] for q in masks])


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
        second = jax.jit(jax.jacrev(jax.grad(f)))(C3)
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
    a, step, gradient = np.append(C3, 0.6), 1e-5, jax.jit(jax.grad(f))
    second = jax.jit(jax.jacrev(gradient))(a)
    for i, e in enumerate(np.eye(4) * step):
        close(second[:, i], (gradient(a + e) - gradient(a - e)) / (2 * step), rtol=1e-6)


# ----------------------------------------------------------------------------------- the edges

SAMPLERS = [
    categorical.sample,
    categorical.gumbel_softmax,
    categorical.log_gumbel_softmax,
    categorical.straight_through_gumbel_softmax,
    *HARD_SAMPLERS,
]


def test_long_rows_without_a_law_are_nan():
    """Of 20 classes, by another code than few: a row masked throughout, with a NaN, or with +inf;
    the row beside it is unharmed."""
    logits = np.zeros((4, 20))
    logits[0], logits[1, 0], logits[2, -1] = -np.inf, np.nan, np.inf
    draws = jax.jit(lambda l: [sampler(KEY, l) for sampler in SAMPLERS])(logits)
    for sampler, z in zip(SAMPLERS, draws, strict=True):
        assert np.all(np.isnan(z[:3]).any(-1)) and np.all(np.isfinite(z[3]))
        if sampler not in (categorical.gumbel_softmax, categorical.log_gumbel_softmax):
            assert np.all(np.isnan(z[:3]))


def test_one_class():
    """Sure, and without a gradient."""
    logits = np.array([[0.3], [-5.0]])
    pulled = lambda l: [with_slopes(functools.partial(s, KEY))(l) for s in SAMPLERS]
    for sampler, (z, slope) in zip(SAMPLERS, jax.jit(pulled)(logits), strict=True):
        one = float(sampler is not categorical.log_gumbel_softmax)
        assert np.array_equal(z, np.full((2, 1), one)) and np.array_equal(slope, np.zeros((2, 1)))


@pytest.mark.thorough
def test_integration_by_scipy_agrees_with_the_grid():
    """The simplex density by nested quadrature, apart from the grid above."""
    log_prob = jax.jit(
        lambda a, b: categorical.gumbel_softmax_log_prob(
            jnp.stack([a, b, 1 - a - b]), C3, temperature=1.5
        )
    )
    total, _ = integrate.dblquad(
        lambda b, a: np.exp(float(log_prob(a, b))), 0, 1, 0, lambda a: 1 - a, epsabs=1e-5
    )
    assert total == pytest.approx(1, abs=1e-4)
