"""k-subsets by the conditional Bernoulli law, against enumeration of every subset."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, central, close, hard_rule, k_hots, pullback, with_slopes
from scipy import stats
from scipy.special import logsumexp, softmax

from relaxjax import categorical, subsets

KEY = jax.random.key(0)
DTYPES = ["bfloat16", "float16", "float32", "float64"]
# The reference's inputs.
L5 = np.array([0.5, -1, 0, 1.2, 0.3])
G5 = np.array([1, -2, 0.5, 0.3, -0.7])
A = np.array(
    [
        [1, 0.3, -0.2, 0, 0.4],
        [0.3, 0.5, 0.7, -0.1, 0],
        [-0.2, 0.7, -1, 0.2, 0.3],
        [0, -0.1, 0.2, 0.8, -0.5],
        [0.4, 0, 0.3, -0.5, 0.6],
    ]
)
B = np.array([0.4, -0.1, 0.2, 0.3, -0.6])
MU5 = (0.469734439, 0.127046222, 0.315519557, 0.684077468, 0.403622315)
X5 = np.array([1.0, 0, 0, 0, 1])
MASKED = np.array([0.5, -np.inf, 0, 1.2, -np.inf, 0.3])
EXTREME = 1e4 * np.array([1, 0, -1, 0, 1, 0])
BARE = np.array([0.5, -np.inf, 0, -np.inf, -np.inf, 0.3])  # as many items as are drawn
LAWS = [(L5, 2), (MASKED, 3), (EXTREME, 3), (BARE, 3)]

# The scans compile slowly: once for every shape and k.
mean = jax.jit(subsets.mean, static_argnums=1)
log_prob = jax.jit(subsets.log_prob, static_argnums=2)
sample = jax.jit(subsets.sample, static_argnums=2, static_argnames="shape")
SAMPLERS = [subsets.sample, subsets.simple, subsets.zgr]
states = functools.cache(k_hots)  # (C(n, k), n)


def thorough(*values):
    return pytest.param(*values, marks=pytest.mark.thorough)


def log_weights(x, logits):
    return np.where(x > 0, logits, 0).sum(-1)


def law(logits, k):
    """The states and their probabilities."""
    x = states(len(logits), k)
    return x, softmax(log_weights(x, logits))


def marginals(logits, k):
    x, p = law(logits, k)
    return p @ x


def covariance(logits, k):
    x, p = law(logits, k)
    d = x - p @ x
    return (d.T * p) @ d


def large_marginals(logits, k):
    """By products of polynomials in float64, for n beyond enumeration: only positive terms."""
    n, w = len(logits), np.exp(logits)
    before, after = np.zeros((2, n + 1, k))
    before[0, 0] = after[n, 0] = 1
    times = lambda e, w: e + w * np.append(0, e[:-1])
    for i in range(n):
        before[i + 1] = times(before[i], w[i])
        after[n - 1 - i] = times(after[n - i], w[n - 1 - i])
    without = np.sum(before[:-1] * after[1:, ::-1], axis=-1)  # e_{k-1} of the other items
    return k * w * without / np.sum(w * without)


JACOBIANS = {  # dz/dlogits as the reference states it, at the draw x
    "simple": lambda x, l, k: covariance(l, k),
    "zgr": lambda x, l, k: (
        (np.outer(x - marginals(l, k), x - marginals(l, k)) + covariance(l, k)) / 2
    ),
}


@functools.partial(jax.jit, static_argnums=(0, 3))
def core(name, x, logits, k):
    """The draw from x."""
    return hard_rule(functools.partial(getattr(subsets, f"_{name}_rule"), k))(x, logits)


def rule(name, x, logits, k, g):
    """The value and the cotangent of logits."""
    z, back = jax.vjp(lambda l: core(name, x, l, k), logits)
    return z, back(g)[0]


@functools.partial(jax.jit, static_argnums=1)
def everything(logits, k):
    """All that the module makes of logits, with the cotangents, by its public names."""
    x = subsets.sample(KEY, logits, k)
    results = {"sample": x}
    for name, f in {
        "mean": lambda l: subsets.mean(l, k),
        "log_prob": lambda l: subsets.log_prob(x, l, k),
        "simple": lambda l: subsets.simple(KEY, l, k),
        "zgr": lambda l: subsets.zgr(KEY, l, k),
    }.items():
        value, back = jax.vjp(f, logits)
        g = jnp.arange(1, 1 + value.size).reshape(value.shape).astype(logits.dtype)
        results |= {name: value, f"cotangent of {name}": back(g)[0]}
    return results


# -------------------------------------------------------------------------------- the law itself


def test_oracles():
    close(log_prob(X5, L5, 2), -2.2536366131, rtol=1e-10)
    close(L5 @ X5 - log_prob(X5, L5, 2), 3.0536366131, rtol=1e-10)  # log e_2
    close(mean(L5, 2), MU5, rtol=5e-9)


@functools.partial(jax.jit, static_argnums=2)
def derivatives(x, logits, k):
    """Of log_prob at every x: itself, its gradient and its second derivatives."""
    f = lambda l, x: subsets.log_prob(x, l, k)
    return jax.vmap(lambda x: (f(logits, x), jax.grad(f)(logits, x), jax.hessian(f)(logits, x)))(x)


@pytest.mark.parametrize("logits, k", LAWS, ids=str)
def test_log_prob(logits, k):
    """Oracle: enumeration; values, total, gradient x - mu, second derivatives -Cov."""
    x, p = law(logits, k)
    values, gradients, hessians = derivatives(x, logits, k)
    w = log_weights(x, logits)
    close(values, w - logsumexp(w), rtol=1e-12, atol=1e-11)
    close(np.sum(np.exp(values)), 1, rtol=1e-10)
    masked = logits == -np.inf
    for i in np.flatnonzero(w > -np.inf):
        close(gradients[i], np.where(masked, 0, x[i] - p @ x), rtol=1e-10, atol=1e-11)
        close(hessians[i], -covariance(logits, k), rtol=1e-10, atol=1e-11)
    assert np.all(np.asarray(gradients)[:, masked] == 0)


def test_log_prob_and_mean_have_their_differences():
    """Oracle: central differences of the enumerated formulas; of Cov for the mean's second."""
    weights = np.array([0.7, -1.1, 0.4, 0.2, 0.9])
    x = states(5, 2)
    formula = lambda l: l @ X5 - logsumexp(log_weights(x, l))
    _, gradients, _ = derivatives(x, L5, 2)
    (i,) = np.flatnonzero(np.all(x == X5, axis=-1))
    close(gradients[i], central(formula, L5), rtol=1e-8, atol=1e-9)
    slope = jax.jit(jax.grad(lambda l: weights @ subsets.mean(l, 2)))
    close(slope(L5), central(lambda l: weights @ marginals(l, 2), L5), rtol=1e-8, atol=1e-9)
    second = jax.jit(jax.jacrev(slope))(L5)
    for i in range(5):
        expected = central(lambda l, i=i: covariance(l, 2)[i] @ weights, L5)
        close(second[i], expected, rtol=1e-7, atol=1e-9)


def test_what_is_not_a_subset_has_probability_zero():
    for x in ([1.0, 1, 1, 0, 0], [1.0, 0, 0, 0, 0], [0.0] * 5, [1.0] * 5):
        assert log_prob(np.array(x), L5, 2) == -np.inf
    assert log_prob(np.array([1.0, 1, 1, 0, 0, 0]), MASKED, 3) == -np.inf


def entropy(logits, k):
    _, p = law(logits, k)
    return -np.sum(p[p > 0] * np.log(p[p > 0]))


def kl(logits_q, logits_p, k):
    x, q = law(logits_q, k)
    _, p = law(logits_p, k)
    log_p = log_weights(x, logits_p)
    log_p -= logsumexp(log_p)
    return np.sum(q[q > 0] * (np.log(q[q > 0]) - log_p[q > 0]))


entropies = {k: with_slopes(functools.partial(subsets.entropy, k=k)) for k in (2, 3)}
divergences = {k: with_slopes(functools.partial(subsets.kl, k=k)) for k in (2, 3)}


@pytest.mark.parametrize("logits, k", LAWS, ids=str)
def test_entropy(logits, k):
    """Oracle: enumeration; the slope is -Cov logits."""
    value, slope = entropies[k](logits)
    # log e_k and the mean of the weights are as large as 2e4 at logits of 1e4.
    close(value, entropy(logits, k), rtol=1e-11, atol=1e-11)
    finite = np.where(logits == -np.inf, 0, logits)
    close(slope, -covariance(logits, k) @ finite, rtol=1e-9, atol=1e-9)
    assert np.all(slope[logits == -np.inf] == 0)


OTHER = np.array([-0.4, 0.8, 1.0, 0.1, -2.0])
PAIRS = [
    (L5, OTHER, 2),
    (MASKED, np.append(OTHER, 0.7), 3),  # a mask of q alone
    (MASKED, np.where(np.isinf(MASKED), -np.inf, np.append(OTHER, 0.7)), 3),
    (BARE, np.append(OTHER, 0.7), 3),  # q is sure
    (np.append(OTHER, 0.7), EXTREME, 3),
]


@pytest.mark.parametrize("q, p, k", PAIRS, ids=str)
def test_kl(q, p, k):
    """Oracle: enumeration; the slopes are Cov (logits_q - logits_p) and mean_p - mean_q."""
    value, dq, dp = divergences[k](q, p)
    close(value, kl(q, p, k), rtol=1e-11, atol=1e-11)
    difference = np.where(np.isinf(q), 0, q - np.where(np.isinf(q), 0, p))
    close(dq, covariance(q, k) @ difference, rtol=1e-9, atol=1e-9)
    close(dp, marginals(p, k) - marginals(q, k), rtol=1e-9, atol=1e-11)
    assert np.all(dq[np.isinf(q)] == 0) and np.all(dp[np.isinf(p)] == 0)


def test_kl_of_what_p_never_is():
    """Infinite where q may hold an item that p masks, NaN where one has no law, 0 of the same."""
    assert divergences[2](L5, np.where(np.arange(5) == 2, -np.inf, OTHER))[0] == np.inf
    assert divergences[3](np.append(OTHER, 0.7), MASKED)[0] == np.inf
    assert np.isnan(divergences[2](L5, np.where(np.arange(5) == 2, 0, -np.inf))[0])
    value, *slopes = divergences[3](MASKED, MASKED)
    close(value, 0, atol=1e-14)
    close(slopes, np.zeros((2, 6)), atol=1e-14)


def test_entropy_and_kl_have_their_second_derivatives():
    """Oracle: central differences of the stated slopes."""
    curve = jax.jit(jax.jacrev(jax.grad(lambda l: subsets.entropy(l, 2))))(L5)
    both = jax.grad(lambda a: subsets.kl(a[:5], a[5:], 2))
    curves = jax.jit(jax.jacrev(both))(np.append(L5, OTHER))

    def slopes(a):
        q, p = a[:5], a[5:]
        dp = marginals(p, 2) - marginals(q, 2)
        return np.append(covariance(q, 2) @ (q - p), dp)

    for i in range(10):
        if i < 5:
            close(curve[i], central(lambda l, i=i: -(covariance(l, 2) @ l)[i], L5), 1e-7, 1e-8)
        at = np.append(L5, OTHER)
        close(curves[i], central(lambda a, i=i: slopes(a)[i], at), rtol=1e-7, atol=1e-8)


BRUTE = {
    "normal": np.random.default_rng(0).normal(size=16) * 2,
    "tie at 0": 1e4 * np.random.default_rng(1).permutation([1] * 3 + [0] * 6 + [-1] * 7),
    "tie at -1e4": 1e4 * np.random.default_rng(2).permutation([1] * 3 + [0] + [-1] * 12),
    "tie at 1e4": 1e4 * np.random.default_rng(3).permutation([1] * 7 + [0] * 5 + [-1] * 4),
}


@pytest.mark.parametrize("name", BRUTE)
def test_mean_by_brute_force(name):
    """Oracle: all 4368 subsets of 5 of 16, and sums of the marginals."""
    logits = BRUTE[name]
    expected = marginals(logits, 5)
    for dtype, tolerance in (("float64", 1e-14), ("float32", 1e-5)):
        if name != "normal":  # the log of e_k is as large as 3e4 and the mean has its rounding
            tolerance = 3e4 * np.finfo(dtype).eps
        actual = mean(logits.astype(dtype), 5)
        assert actual.dtype == dtype
        close(actual, expected, rtol=0, atol=tolerance)
        close(np.sum(actual), 5, rtol=10 * np.finfo(dtype).eps)


def test_large_mean():
    """Oracle: products of polynomials; first they against enumeration."""
    close(large_marginals(BRUTE["normal"], 5), marginals(BRUTE["normal"], 5), rtol=1e-12)
    logits = np.random.default_rng(4).normal(size=1000)
    close(mean(logits, 50), large_marginals(logits, 50), rtol=1e-10)
    narrow = logits.astype(np.float32)
    expected = large_marginals(narrow.astype(np.float64), 50)
    close(mean(narrow, 50), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_shift_changes_nothing(dtype):
    """Logits and shifts on a grid of 1/8, so that the shift itself does not round."""
    logits = np.array([0.5, -1, 0.125, 1.25, -np.inf, 0.375, 0, -2], dtype)
    expected, eps = everything(logits, 3), np.finfo(dtype).eps
    for shift in np.array([-4096, 64, 4096], dtype):
        actual = everything(logits + shift, 3)
        assert np.array_equal(actual["sample"], expected["sample"])
        for name, value in actual.items():
            # log_prob is a difference of two numbers as large as 3 shifts.
            atol = 6 * abs(shift) * eps if name == "log_prob" else 50 * eps
            close(value, expected[name], rtol=0, atol=atol)


# ------------------------------------------------------------------------------------- the draws


def check_law(x, logits, k):
    """Chi-squared over every state; what has probability 0 must not occur."""
    x, n = np.asarray(x, float), len(logits)
    support, p = law(logits, k)
    assert np.all((x == 0) | (x == 1)) and np.all(x.sum(-1) == k)
    code = 2.0 ** np.arange(n)
    counts = np.sum((x @ code)[:, None] == support @ code, axis=0)
    assert counts.sum() == len(x) and np.all(counts[p == 0] == 0)
    common = p * len(x) >= 5
    group = lambda c: np.append(c[common], c[~common].sum())
    observed, share = group(counts), group(p)
    keep = share > 0
    if keep.sum() > 1:
        assert stats.chisquare(observed[keep], share[keep] * len(x)).pvalue > SIGNIFICANCE


@pytest.mark.parametrize(
    "logits, k, dtype",
    [
        (MASKED, 3, "float32"),
        *(thorough(MASKED, 3, dtype) for dtype in DTYPES if dtype != "float32"),
        *(thorough(L5, 2, dtype) for dtype in DTYPES),
    ],
    ids=str,
)
def test_the_draw_has_its_law(logits, k, dtype):
    logits = jnp.asarray(logits, dtype)
    x = sample(jax.random.key(1), logits, k, shape=(100_000,))
    assert x.dtype == dtype and x.shape == (100_000, len(logits))
    check_law(x, np.asarray(logits, float), k)


@pytest.mark.parametrize("k", [1, thorough(2), 3, thorough(4), thorough(5), 6])
def test_extreme_draws(k):
    """Sure items are sure, ties are fair, and there are k ones at every k, in float32."""
    for logits in (EXTREME, -EXTREME):
        x = sample(jax.random.key(2), logits.astype(np.float32), k, shape=(20_000,))
        check_law(x, logits, k)


@pytest.mark.parametrize("n", [20_000, thorough(100_000)])
def test_inclusion_frequencies(n):
    """Oracle: the exact marginals of 7 of 40, of which two are masked."""
    logits = np.random.default_rng(5).normal(size=40)
    logits[[3, 20]] = -np.inf
    counts = np.asarray(sample(jax.random.key(3), logits, 7, shape=(n,)), int).sum(0)
    assert counts.sum() == 7 * n and np.all(counts[[3, 20]] == 0)
    for count, p in zip(counts, large_marginals(logits, 7), strict=True):
        assert p == 0 or stats.binomtest(int(count), n, p).pvalue > SIGNIFICANCE


def test_one_key_is_one_draw():
    logits = np.random.default_rng(6).normal(size=(200, 5))
    draw = sample(KEY, logits, 2)
    family = lambda key, l, k: subsets.family(k).sample(key, l)
    draws = jax.jit(lambda l: [f(KEY, l, 2) for f in (*SAMPLERS, family)])(logits)
    assert all(np.array_equal(x, draw) for x in draws)
    assert not np.array_equal(sample(jax.random.key(1), logits, 2), draw)
    gradient = jax.grad(lambda l: jnp.sum(sample(KEY, l, 2)))(logits)
    assert np.array_equal(gradient, np.zeros((200, 5)))


# ------------------------------------------------------------------------------------- the rules


def test_rule_oracles():
    expected = {
        "simple": (0.316287558, -0.253521908, 0.109830607, 0.076004622, -0.248600880),
        "zgr": (0.159180609, -0.127009368, 0.054298367, 0.036664732, -0.123134341),
    }
    for name, cotangent in expected.items():
        close(rule(name, X5, L5, 2, G5)[1], cotangent, rtol=1e-8)


@pytest.mark.parametrize("name", JACOBIANS)
@pytest.mark.parametrize("logits, k", LAWS, ids=str)
def test_rules_are_their_dense_jacobians(name, logits, k):
    """Oracle: the covariance by enumeration, at every x of the law."""
    x, p = law(logits, k)
    for draw in x[p > 0]:
        z, rows = zip(*(rule(name, draw, logits, k, g) for g in np.eye(len(logits))), strict=True)
        assert np.array_equal(z[0], draw)
        close(rows, JACOBIANS[name](draw, logits, k), rtol=1e-9, atol=1e-11)
        assert np.all(np.asarray(rows)[:, logits == -np.inf] == 0)
        # An infinite cotangent of a masked item stays there.
        infinite = np.where(logits == -np.inf, np.inf, 1)
        assert np.all(np.isfinite(rule(name, draw, logits, k, infinite)[1]))


def gradients(name, f, slope, logits, k):
    """The exact gradient of E[f], and E of the rule over every x."""
    x, p = law(logits, k)
    exact = (p * [f(s) for s in x]) @ (x - p @ x)
    return exact, p @ np.stack([rule(name, s, logits, k, slope(s))[1] for s in x])


def test_expected_gradient_oracles():
    f, slope = lambda x: x @ A @ x / 2 + B @ x, lambda x: A @ x + B
    true = (0.263440331, 0.000100132, -0.102483120, 0.056622168, -0.217679511)
    biased = (0.224408314, -0.014630690, -0.061631326, 0.098280462, -0.246426760)
    for name, expected in (("zgr", true), ("simple", biased)):
        exact, mean = gradients(name, f, slope, L5, 2)
        close(exact, true, rtol=2e-8, atol=1e-9)
        close(mean, expected, rtol=2e-8, atol=1e-9)


@pytest.mark.parametrize("n, k", [(5, 2), (7, 3)])
def test_what_the_rules_are_exact_for(n, k):
    """Oracle: every x; simple for linear f, zgr for quadratic f, neither for a cubic one."""
    rng = np.random.default_rng(7)
    Q, w, logits = rng.normal(size=(n, n)), rng.normal(size=n), rng.normal(size=n)
    linear = (lambda x: w @ x, lambda x: w)
    quadratic = (lambda x: x @ Q @ x + w @ x, lambda x: (Q + Q.T) @ x + w)
    cubic = (lambda x: (w @ x) ** 3, lambda x: 3 * (w @ x) ** 2 * w)
    for name, f in (("simple", linear), ("zgr", linear), ("zgr", quadratic)):
        exact, mean = gradients(name, *f, logits, k)
        close(mean, exact, rtol=1e-10, atol=1e-12)
    for name, f in (("simple", quadratic), ("simple", cubic), ("zgr", cubic)):
        exact, mean = gradients(name, *f, logits, k)
        assert np.abs(mean - exact).max() > 0.01


@pytest.mark.parametrize("name", JACOBIANS)
def test_second_derivatives_apply_the_rule_to_x(name):
    """Oracle: central differences of the stated rule, with x's differential put in.

    With f(z) = <w, z>^2 / 2 the gradient is M(x, l)^T w <w, x>, M the stated Jacobian; its total
    derivative is the partial one in l plus the partial one in x through M itself.
    """
    w, step, M = np.array([0.7, -1.1, 0.4, 0.2, 0.9]), 1e-5, JACOBIANS[name]
    second = jax.jit(jax.jacrev(jax.grad(lambda l: (core(name, X5, l, 2) @ w) ** 2 / 2)))
    gradient = lambda x, l: M(x, l, 2).T @ w * (w @ x)
    for logits in (L5, np.where(np.arange(5) == 2, -np.inf, L5)):
        actual, slope = second(logits), M(X5, logits, 2)
        for i in range(5):
            e = step * np.eye(5)[i]
            up, down = (gradient(X5 + s * slope @ e, logits + s * e) for s in (1, -1))
            close(actual[:, i], (up - down) / (2 * step), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "logits", [[0.3, -1.2, 2.0], [0.3, -np.inf, 2.0], [1e4, 0.0, -1e4]], ids=str
)
def test_one_of_n_is_a_categorical(logits):
    logits, g = np.array(logits), G5[:3]
    close(mean(logits, 1), softmax(logits), rtol=1e-10, atol=1e-13)
    for d in np.eye(3)[np.isfinite(logits)]:
        close(log_prob(d, logits, 1), categorical.log_prob(d, logits), rtol=1e-10, atol=1e-11)
        for name, same in (
            (
                "simple",
                lambda l, d=d: hard_rule(categorical._straight_through_rule)(d, l, np.float64(1)),
            ),
            ("zgr", lambda l, d=d: hard_rule(categorical._zgr_rule)(d, l)),
        ):
            expected = pullback(same, logits)(g)[0]
            close(rule(name, d, logits, 1, g)[1], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("logits", [L5, EXTREME[:5]], ids=str)
def test_all_of_n_is_sure(logits):
    results = everything(logits, 5)
    for name in ("sample", "simple", "zgr", "mean"):
        assert np.array_equal(results[name], np.ones(5))
    for name in ("simple", "zgr", "mean", "log_prob"):
        assert np.array_equal(results[f"cotangent of {name}"], np.zeros(5))
    assert results["log_prob"] == pytest.approx(0, abs=1e-11)


# ----------------------------------------------------------------------------- batches and dtypes


@pytest.mark.parametrize("name", JACOBIANS)
def test_batches_are_rows(name):
    """Draws of a (3,) batch in the shape (40, 3): the cotangent sums over the draws of a row."""
    logits = np.random.default_rng(10).normal(size=(3, 5))
    logits[1, 2] = -np.inf

    @jax.jit
    def both(logits, g):
        z, back = jax.vjp(lambda l: getattr(subsets, name)(KEY, l, 2, shape=(40, 3)), logits)
        return z, back(g)[0]

    g = np.random.default_rng(11).normal(size=(40, 3, 5))
    z, actual = both(logits, g)
    expected = [
        sum(JACOBIANS[name](x, logits[i], 2) @ h for x, h in zip(z[:, i], g[:, i], strict=True))
        for i in range(3)
    ]
    close(actual, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", *(thorough(d) for d in DTYPES if d != "float32")])
def test_everything_is_finite_at_the_extremes(dtype):
    """Masks beside logits of 1e4; masked items are exactly 0 in all of it."""
    logits = jnp.asarray([1e4, -np.inf, 0, -1e4, 1e4, 0, -np.inf, -1e4], dtype)
    for k in (3, 6) if dtype == "float32" else (3,):
        for name, value in everything(logits, k).items():
            assert bool(jnp.all(jnp.isfinite(value))), name
            assert value.ndim == 0 or np.all(np.asarray(value)[[1, 6]] == 0), name


@pytest.mark.parametrize("name", JACOBIANS)
def test_many_items(name):
    """Oracle: the directional difference of the marginals; n = 1000 in float32."""
    rng = np.random.default_rng(12)
    logits, g = rng.normal(size=(2, 1000)).astype(np.float32)

    @jax.jit
    def both(logits, g):
        z, back = jax.vjp(lambda l: getattr(subsets, name)(KEY, l, 50), logits)
        return z, back(g)[0]

    z, gradient = both(logits, g)
    assert z.dtype == gradient.dtype == np.float32
    z, l, h = (np.asarray(a, np.float64) for a in (z, logits, g))
    assert np.sum(z) == 50 and set(np.unique(z)) == {0.0, 1.0}
    expected = (large_marginals(l + 1e-4 * h, 50) - large_marginals(l - 1e-4 * h, 50)) / 2e-4
    if name == "zgr":
        d = z - large_marginals(l, 50)
        expected = (d * (d @ h) + expected) / 2
    # float32 marginals are 7e-6 off; zgr multiplies them by <x - mu, g>.
    scale = 1 if name == "simple" else np.abs((z - large_marginals(l, 50)) @ h)
    close(gradient, expected, rtol=1e-4, atol=2e-5 * max(1, scale))


# -------------------------------------------------------------------------------------- the edges


def test_long_rows_without_a_law_are_nan():
    """Of 20 items, by another code than few: too few items, a NaN or +inf among them; the row
    beside is unharmed, and its gradient."""
    row = np.tile(L5, 4)
    logits = np.tile(row, (4, 1))
    logits[0, 1:], logits[1, 0], logits[2, -1] = -np.inf, np.nan, np.inf
    logits = jnp.asarray(logits)
    results = everything(logits, 2)
    for name in ("sample", "simple", "zgr"):
        z = np.asarray(results[name])
        assert np.all(np.isnan(z[:3])) and z[3].sum() == 2
    mu = np.asarray(results["mean"])
    assert np.all(np.isnan(mu[0])) and np.all(np.isnan(mu[:3]).any(-1))
    close(mu[3], marginals(row, 2), rtol=1e-10)
    x = np.tile(np.append(X5, np.zeros(15)), (4, 1))
    log_p = np.asarray(log_prob(x, logits, 2))
    assert np.all(np.isnan(log_p[:3]))
    w = log_weights(states(20, 2), row)
    close(log_p[3], row @ x[3] - logsumexp(w), rtol=1e-10)
    x, g = np.asarray(results["sample"])[3], np.arange(61.0, 81)  # everything's cotangents
    for name, M in JACOBIANS.items():
        close(results[f"cotangent of {name}"][3], M(x, row, 2) @ g, rtol=1e-9, atol=1e-11)
