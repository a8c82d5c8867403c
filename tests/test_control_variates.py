"""Control variates against printed oracles, their definitions in NumPy, and all their draws."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import (
    HALVED,
    PROBLEMS,
    B,
    C,
    Case,
    S,
    all_draws,
    check_case,
    check_closures,
    check_extremes,
    check_fields,
    check_halved,
    check_transformations,
    check_tree,
    check_variance,
    check_variance_gradient,
    close,
    expectation,
    functions,
    k_hots,
    mean_and_variance,
)
from rows import mostly_thorough
from scipy.special import expit, log_softmax, logit, softmax

from relaxjax import Family, bernoulli, categorical, control_variates, score, subsets
from relaxjax._surrogate import attach

KEY = jax.random.key(0)
FAMILIES = {
    "bernoulli": bernoulli.family,
    "categorical": categorical.family,
    "subsets": subsets.family(2),
}

# ------------------------------------------------------------------- the estimators in NumPy


def relaxed(law_name, l, noise, fresh, temperature):
    """The hard draw b, then the relaxed z and z', and their pullbacks to l, by the reference."""
    if law_name == "bernoulli":
        z = l + noise
        b, sign = (z > 0) * 1.0, np.sign(z)
        v = expit(fresh)
        z_b = sign * (np.log1p(np.exp(sign * l + np.log(v))) - np.log1p(-v))
        y, y_b = expit(z / temperature), expit(z_b / temperature)
        slope = expit(sign * l + np.log(v))
        pull = lambda g: y * (1 - y) / temperature * g
        pull_b = lambda g: slope * y_b * (1 - y_b) / temperature * g
        return b, z_b, (y, pull), (y_b, pull_b)
    lp = log_softmax(l, axis=-1)
    z = lp + noise
    b = (z == z.max(-1, keepdims=True)) * 1.0
    top = np.sum(b * fresh, -1, keepdims=True)
    z_b = np.where(b > 0, top, -np.logaddexp(-(lp + fresh), -top))
    slope = np.where(b > 0, 0, expit(top - lp - fresh))
    y, y_b = softmax(z / temperature, -1), softmax(z_b / temperature, -1)
    covariance = lambda q, g: q * (g - np.sum(q * g, -1, keepdims=True))
    to_logits = lambda g: g - softmax(l, -1) * np.sum(g, -1, keepdims=True)
    pull = lambda g: to_logits(covariance(y, g) / temperature)
    pull_b = lambda g: to_logits(slope * covariance(y_b, g) / temperature)
    return b, z_b, (y, pull), (y_b, pull_b)


def relaxed_control(law_name, l, noise, fresh, temperature, f, c, dc):
    """(f(b) - c(z')) s(b) + grad c(z) - grad c(z'); c and dc of relaxed samples."""
    b, _, (y, pull), (y_b, pull_b) = relaxed(law_name, l, noise, fresh, temperature)
    mu = expit(l) if law_name == "bernoulli" else softmax(l, -1)
    return b, (f(b) - c(y_b)) * (b - mu) + pull(dc(y)) - pull_b(dc(y_b))


def neighbors(x, mu):
    """(variable, neighbor, its probability) for every change of one variable of x."""
    for i in range(len(x)):
        if x.ndim == 1:
            y = x.copy()
            y[i] = 1 - x[i]
            yield i, y, mu[i] if y[i] else 1 - mu[i]
        else:
            for c in np.flatnonzero(x[i] == 0):
                y = x.copy()
                y[i] = np.eye(x.shape[1])[c]
                yield i, y, mu[i, c]


def rodeo(x, f, df, mu, critic):
    """The definition, by visiting all neighbors; h may be a scalar or a vector."""
    stein = lambda h, x: sum(q * (h(y) - h(x)) for _, y, q in neighbors(x, mu))
    K, F, V = len(x), [f(y) for y in x], [df(y) for y in x]

    def control(k, which):
        return lambda y: np.mean(
            [critic(F[j], np.sum(V[j] * (y - mu)))[which] for j in range(K) if j != k]
        )

    g = np.zeros_like(mu)
    for k in range(K):
        baseline = np.mean([F[j] + stein(control(j, 0), x[j]) for j in range(K) if j != k])
        g += (F[k] - baseline) * (x[k] - mu)
        g += stein(lambda y, k=k: control(k, 1)(y) * (y - mu), x[k])
    return g / K


WILD = {
    "numpy": lambda a, t: (np.tanh(a + t), a * np.sin(t) / 2),
    "jax": lambda w, a, t: (w * jnp.tanh(a + t), w * a * jnp.sin(t) / 2),
}
mean_of = lambda name, l: expit(l) if name == "bernoulli" else softmax(l, -1)
slope_of = lambda problem: lambda x: 2 * (np.sum(problem.A * x) - problem.c) * problem.A

# --------------------------------------------------------------------------------- fixed draws

ONE, HALF = np.float64(1), np.float64(0.5)
NOISE, FRESH = np.array([1, -0.5, -3]), logit(np.array([0.3, 0.6, 0.8]))
rng = np.random.default_rng(3)
GUMBEL, FRESH_GUMBEL = rng.gumbel(size=(2, 2, 3))
tanh_critic = lambda w, y: w * jnp.sum(jnp.tanh(y))


def muprop(name, x, gradient):
    core = lambda f, l, family, phi: control_variates._muprop(x, f, l, family)
    return Case(name, core, x[None], gradient)


def rebar_case(name, noise, fresh, temperature, gradient, b, slopes={}):  # noqa: B006
    core = lambda f, l, family, phi: control_variates._rebar(
        noise, fresh, f, l, family, phi["temperature"], phi["scale"]
    )
    phi = {"temperature": np.float64(temperature), "scale": ONE}
    return Case(name, core, b[None], gradient, phi, slopes)


def relax_case(name, noise, fresh, temperature, gradient, b):
    core = lambda f, l, family, phi: control_variates._relax(
        noise, fresh, f, l, family, tanh_critic, phi["critic_params"], phi["temperature"]
    )
    phi = {"temperature": np.float64(temperature), "critic_params": ONE}
    return Case(name, core, b[None], gradient, phi)


def rodeo_case(name, x, gradient, scale=None):
    core = lambda f, l, family, phi: control_variates._rodeo(
        x,
        f,
        l,
        family,
        phi.get("scale", ONE),
        WILD["jax"] if scale is None else None,
        phi.get("critic_params"),
    )
    phi = {"critic_params": ONE} if scale is None else {"scale": np.float64(scale)}
    return Case(name, core, x, gradient, phi)


def quadratic_case(name, x, a, u, gradient):
    core = lambda f, l, family, phi: control_variates._quadratic(
        x, f, l, family, phi["linear"], phi.get("factors")
    )
    phi = {"linear": np.array(a)} | ({} if u is None else {"factors": np.array(u)})
    return Case(name, core, x, gradient, phi)


def by_hand(name, noise, fresh, temperature, c, dc):
    problem = PROBLEMS[name]
    return relaxed_control(name, problem.logits, noise, fresh, temperature, problem.f, c, dc)


REBAR_C = by_hand("categorical", GUMBEL, FRESH_GUMBEL, 0.5, C.f, slope_of(C))
tanh_control = (lambda y: np.sum(np.tanh(y)), lambda y: 1 - np.tanh(y) ** 2)
RELAX_C = by_hand("categorical", GUMBEL, FRESH_GUMBEL, 0.7, *tanh_control)
A_B, U_B = (0.5, 1, -1), ((0.6, 1, -0.8),)
A_C, U_C = ((0.3, 1, -0.5), (0, -0.4, 0.8)), 0.7 * C.A[None]
A_S, U_S = (0.2, 0.5, 0, -0.1), 0.8 * S.A[None]
TWICE = np.array([0, 0])  # the same sample twice leaves grad H alone
B_B = np.array([1.0, 0, 0])
RODEO_C = lambda critic: rodeo(
    C.samples, C.f, slope_of(C), mean_of("categorical", C.logits), critic
)

CASES = {
    "muprop": muprop("bernoulli", B.samples[0], (-0.07411235, -0.19439281, 0.05560787)),
    "muprop, categorical": muprop(
        "categorical",
        C.samples[0],
        ((0.42208880, 0.30647464, -0.72856344), (0.01343037, -0.10796443, 0.09453406)),
    ),
    "rebar": rebar_case(
        "bernoulli",
        NOISE,
        FRESH,
        0.5,
        (0.06453383, 0.08093813, -0.29794414),
        B_B,
        {"temperature": 0.27305040, "scale": 0.06646018},
    ),
    "rebar, categorical": rebar_case(
        "categorical", GUMBEL, FRESH_GUMBEL, 0.5, REBAR_C[1], REBAR_C[0]
    ),
    "relax": relax_case("bernoulli", NOISE, FRESH, 0.5, (-0.19332428, 0.19167584, 0.62318878), B_B),
    "relax, categorical": relax_case(
        "categorical", GUMBEL, FRESH_GUMBEL, 0.7, RELAX_C[1], RELAX_C[0]
    ),
    "rodeo": rodeo_case("bernoulli", B.samples, (-0.20846707, 0.86932051, 0.01986715), 1),
    "rodeo, critic": rodeo_case("bernoulli", B.samples, (-0.32589541, 0.34142841, -0.06360609)),
    "rodeo, categorical": rodeo_case(
        "categorical", C.samples, RODEO_C(lambda a, t: (0.7 * t, 0.35 * t)), 0.7
    ),
    "rodeo, categorical, critic": rodeo_case("categorical", C.samples, RODEO_C(WILD["numpy"])),
    "quadratic": quadratic_case(
        "bernoulli", B.samples[:2], A_B, U_B, (0.07923491, 0.46300304, -0.14571716)
    ),
    "quadratic, its mean": quadratic_case(
        "bernoulli", B.samples[TWICE], A_B, U_B, (0.07923491, 0.26300304, -0.14571716)
    ),
    "quadratic in its span": quadratic_case(
        "bernoulli", B.samples[:2], (-1, -2.0, 1), ((1, 2.0, -1),), B.gradient
    ),
    "quadratic, linear": quadratic_case("bernoulli", B.samples[:2], np.zeros(3), None, (0, 1, 0)),
    "quadratic, categorical, its mean": quadratic_case(
        "categorical",
        C.samples[TWICE],
        A_C,
        U_C,
        ((0.02528914, 0.50535723, -0.53064638), (-0.04857752, -0.13086390, 0.17944143)),
    ),
    "quadratic, subsets, its mean": quadratic_case(
        "subsets", S.samples[TWICE], A_S, U_S, (0.03005293, 0.26301480, -0.26476404, -0.02830369)
    ),
}


def test_the_oracles_in_numpy():
    """The conditional draws and the Stein operator above, at the reference's figures."""
    v = np.array([0.3, 0.6, 0.9, 0.2])
    l = np.array([0.2, -0.3, 0.5, 1])
    gumbel = -np.log(-np.log(v))
    noise = np.where(np.arange(4) == 1, 10.0, 0)
    _, z_b, *_ = relaxed("categorical", l, noise, gumbel, 0.5)
    close(z_b, (-1.90950234, 0.67172699, 0.08851347, -1.44885289), rtol=0, atol=5e-9)
    _, z_b, *_ = relaxed("bernoulli", B.logits, NOISE, FRESH, 0.5)
    close(z_b, (0.75854452, -1.88364299, -1.71223655), rtol=1e-8)
    g = rodeo(B.samples, B.f, slope_of(B), expit(B.logits), WILD["numpy"])
    close(g, CASES["rodeo, critic"].gradient, rtol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_fixed_draws(name):
    check_case(CASES[name], FAMILIES[CASES[name].law])


SAME_PROGRAM = {"quadratic, its mean", "quadratic in its span"}  # as quadratic, of other numbers


@pytest.mark.parametrize("name", mostly_thorough(CASES, CASES.keys() - SAME_PROGRAM))
def test_closures_get_the_derivative_of_the_value(name):
    check_closures(CASES[name], FAMILIES[CASES[name].law])


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].phi])
def test_hyperparameters_get_the_gradient_of_the_squared_norm(name):
    check_variance_gradient(CASES[name], FAMILIES[CASES[name].law])


# ------------------------------------------------------------------- enumeration of all draws

one = lambda x, f, l, family: control_variates._muprop(x[0], f, l, family)
linear_rodeo = lambda scale: (
    lambda x, f, l, family: control_variates._rodeo(x, f, l, family, np.float64(scale), None, None)
)
wild_rodeo = lambda x, f, l, family: control_variates._rodeo(x, f, l, family, ONE, WILD["jax"], ONE)
quadratic = lambda a, u: (
    lambda x, f, l, family: control_variates._quadratic(
        x, f, l, family, np.array(a), None if u is None else np.array(u)
    )
)
VARIANCES = [  # law, core, samples, the reference's total variance, None where it has none
    ("bernoulli", one, 1, 2.86579250),
    ("categorical", one, 1, 13.32532861),
    ("subsets", one, 1, 4.07085789),
    ("bernoulli", linear_rodeo(0.5), 3, 0.89531885),
    ("bernoulli", linear_rodeo(1), 3, 1.56376152),
    ("categorical", linear_rodeo(1), 3, 7.97542130),
    ("bernoulli", linear_rodeo(0), 2, 1.02144340),
    ("bernoulli", wild_rodeo, 2, None),
    ("categorical", wild_rodeo, 2, None),
    ("bernoulli", quadratic(A_B, U_B), 2, 0.53225460),
    ("bernoulli", quadratic((-1, -2.0, 1), ((1, 2.0, -1),)), 2, 0),
    ("bernoulli", quadratic((0.0, 0, 0), None), 2, 1.02144340),
    ("categorical", quadratic(A_C, U_C), 2, 1.46210535),
    ("subsets", quadratic(A_S, U_S), 2, 0.31096241),
    ("subsets", quadratic(np.zeros(4), S.A[None]), 2, 0),
]


@pytest.mark.parametrize("name, core, count, variance", VARIANCES)
def test_exact_variances(name, core, count, variance):
    problem, family = PROBLEMS[name], FAMILIES[name]
    check_variance(lambda x, l: core(x, problem.f, l, family), problem, count, variance)


@pytest.mark.parametrize("name", ["bernoulli", "categorical"])
def test_special_cases(name):
    """At scale 0 rodeo is rloo and rebar reinforce; rebar is relax with f as its critic."""
    problem, family = PROBLEMS[name], FAMILIES[name]
    f, l, zero = functions(problem.logits.shape)["network"], problem.logits, np.float64(0)
    noise, fresh = (NOISE, FRESH) if name == "bernoulli" else (GUMBEL, FRESH_GUMBEL)
    b = relaxed(name, l, noise, fresh, 1.0)[0]
    x = jnp.asarray(problem.samples)
    half_f = lambda w, y: w * f(y)
    rebar = lambda scale: lambda l: control_variates._rebar(noise, fresh, f, l, family, HALF, scale)
    pairs = [
        (lambda l: linear_rodeo(0)(x, f, l, family), lambda l: score._rloo(x, f, l, family)),
        (rebar(zero), lambda l: score._reinforce(b[None], f, l, family, zero)),
        (
            rebar(HALF),
            lambda l: control_variates._relax(noise, fresh, f, l, family, half_f, HALF, HALF),
        ),
    ]
    for ours, expected in pairs:
        close(jax.jit(jax.grad(ours))(l), jax.jit(jax.grad(expected))(l), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", PROBLEMS)
def test_muprop_has_no_variance_where_f_is_linear(name):
    problem, family = PROBLEMS[name], FAMILIES[name]
    f = functions(problem.logits.shape)["linear"]
    core = lambda x, l: control_variates._muprop(x, f, l, family)
    x, weights = all_draws(problem.states, problem.logits, 1)
    gradients = jax.jit(jax.vmap(jax.grad(core, 1), (0, None)))(x[:, 0], problem.logits)
    mean, total = mean_and_variance(weights, np.asarray(gradients))
    values = np.array([f(y) for y in problem.states])
    close(mean, expectation(problem.states, problem.logits, values)[1], rtol=1e-11, atol=1e-13)
    assert total < 1e-24


def test_the_critic_keeps_its_weights_to_itself():
    """What f, its data and the critic close over gets the derivative of f at b, or nothing."""
    f = lambda w: lambda x: jnp.sum(jnp.tanh(w * (x + 0.3)))
    w, inside = np.array([0.3, -0.7, 1.1]), np.array([0.2, 0.1, -0.4])

    def relax(w, inside, phi):
        # The usual critic: it sees the decoder, and so would leak.
        critic = lambda phi, y: f(w)(y) + jnp.sum(jnp.tanh(phi * y + inside))
        return control_variates._relax(
            NOISE, FRESH, f(w), B.logits, bernoulli.family, critic, phi, HALF
        )

    def rodeo(w, inside, phi):
        critic = lambda phi, a, t: (phi[0] * a * t + jnp.sum(w * inside), jnp.sin(phi[1] * t))
        return control_variates._rodeo(
            B.samples, f(w), B.logits, bernoulli.family, ONE, critic, phi
        )

    phi = np.array([0.5, 1.0, -0.5])
    for estimate, points in ((relax, B_B[None]), (rodeo, B.samples)):
        dw, dinside, dphi = jax.jit(jax.grad(estimate, (0, 1, 2)))(w, inside, phi)
        expected = jax.grad(lambda w, x=points: jnp.mean(jax.vmap(f(w))(x)))(w)
        close(dw, expected, rtol=1e-14)
        assert np.all(dinside == 0) and np.all(dphi[:2] != 0)


@pytest.mark.parametrize("estimate", [score.double_cv, control_variates.muprop])
def test_an_infinite_slope_at_a_sure_bit_stays_there(estimate):
    f = lambda x: jnp.sqrt(x[0]) + jnp.sum(jnp.sin(x[1:]))
    logits = np.array([-np.inf, 0.3, -0.2])
    gradient = jax.grad(lambda l: estimate(jax.random.key(0), f, l, family=bernoulli.family))
    assert np.all(np.isfinite(gradient(logits)[1:]))


def test_a_shared_scale_gets_nothing_beside_a_critic():
    rodeo = lambda scale: control_variates._rodeo(
        B.samples, B.f, B.logits, bernoulli.family, scale, WILD["jax"], ONE
    )
    assert jax.jit(jax.grad(rodeo))(HALF) == 0


def test_conditional_draws_are_on_the_right_side():
    """A critic that counts the z' on the wrong side of b; f = 0, so that g has no other source."""
    rng = np.random.default_rng(5)
    bits = np.array([30, -30, 1e4, -1e4, 0, 0.5], np.float32)
    classes = np.array([[30, -30, 0], [1e4, -1e4, 0], [-np.inf, 1, 2]], np.float32)
    for name, l in (("bernoulli", bits), ("categorical", classes)):
        draw = rng.logistic if name == "bernoulli" else rng.gumbel
        noise, fresh = draw(size=(2, 2_000, *l.shape)).astype(np.float32)
        fresh[:20] = 30 * np.sign(fresh[:20]) if name == "bernoulli" else fresh[:20]

        def g(noise, fresh, name=name, l=l):
            z = l + noise
            if name == "bernoulli":
                side = jnp.sign(z)
                wrong = lambda _, y: jnp.sum((side * (y - 0.5) < 0).astype(y.dtype))
            else:
                b = z == z.max(-1, keepdims=True)
                drawn = lambda y: jnp.max(jnp.where(b, y, 0), -1)
                wrong = lambda _, y: jnp.sum((drawn(y) < jnp.max(y, -1)).astype(y.dtype))
            one = np.float32(1)
            f = lambda x: jnp.sum(x) * 0
            return jax.grad(
                lambda l: control_variates._relax(
                    noise, fresh, f, l, FAMILIES[name], wrong, one, np.float32(1e-3)
                )
            )(l)

        assert not np.any(jax.jit(jax.vmap(g))(noise, fresh))


# --------------------------------------------------------------------------- families by fields

QUADRATIC = {"linear": np.array(A_B), "factors": np.array(U_B)}
CRITIC = {"critic": WILD["jax"], "critic_params": 1.0}
HALVED_CORES = {  # core, samples, the public function, its hyperparameters, the fields it needs
    "muprop": (one, 1, "muprop", {}, ["mean"]),
    "rodeo": (linear_rodeo(0.7), 2, "rodeo", {}, ["mean", "event_ndim", "neighbors"]),
    "rodeo, critic": (wild_rodeo, 2, "rodeo", CRITIC, ["mean", "event_ndim", "neighbors"]),
    "quadratic": (quadratic(A_B, U_B), 2, "quadratic", QUADRATIC, ["mean", "variance"]),
    "quadratic, linear": (
        quadratic(A_B, None),
        2,
        "quadratic",
        {"linear": np.array(A_B)},
        ["mean"],
    ),
}


@pytest.mark.parametrize("name", HALVED_CORES)
def test_a_law_of_the_users(name):
    core, count, public, hyperparameters, fields = HALVED_CORES[name]
    check_halved(lambda x, l, family: core(x, B.f, l, family), count)
    if public != "quadratic":  # it needs an array
        check_tree(lambda params, family: core(B.samples[:count], B.f, params, family))
    public = functools.partial(getattr(control_variates, public), **hyperparameters)
    check_fields(
        public.func.__name__, fields, lambda family: public(KEY, B.f, B.logits, family=family)
    )


@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_a_relaxation_of_the_users(name):
    """Oracles: draw by draw half of the library's; of one bit, the integral over both noises."""
    if name == "rebar":
        core = lambda noise, fresh, f, l, family: control_variates._rebar(
            noise, fresh, f, l, family, HALF, np.float64(0.7)
        )
        public, arguments = control_variates.rebar, {}
    else:
        core = lambda noise, fresh, f, l, family: control_variates._relax(
            noise, fresh, f, l, family, tanh_critic, ONE, HALF
        )
        public, arguments = control_variates.relax, {"critic": tanh_critic, "critic_params": 1.0}
    gradient = lambda l, family, f: jax.jit(
        jax.vmap(lambda noise, fresh: jax.grad(lambda l: core(noise, fresh, f, l, family))(l))
    )
    noises = np.random.default_rng(0).logistic(size=(2, 50, 3))
    ours = gradient(2 * B.logits, HALVED, B.f)(*noises)
    close(ours, gradient(B.logits, bernoulli.family, B.f)(*noises) / 2, rtol=1e-10, atol=1e-13)
    # u splits where b does.
    l, f = np.array([-0.4]), lambda x: jnp.sin(x[0]) + x[0] ** 2
    x, w = np.polynomial.legendre.leggauss(40)
    ends = np.array([0, expit(-l[0]), 1])
    u = np.concatenate([a + (b - a) * (x + 1) / 2 for a, b in itertools.pairwise(ends)])
    weights = np.concatenate([(b - a) * w / 2 for a, b in itertools.pairwise(ends)])
    grid = [logit(y).ravel()[:, None] for y in np.meshgrid(u, u, indexing="ij")]
    g = np.asarray(gradient(2 * l, HALVED, f)(*grid))[:, 0]
    p = expit(l[0])
    close(np.outer(weights, weights).ravel() @ g, p * (1 - p) * (np.sin(1) + 1) / 2, rtol=1e-5)
    check_fields(
        name,
        ["event_ndim", "relaxation"],
        lambda family: public(KEY, B.f, B.logits, family=family, **arguments),
    )


# -------------------------------------------------------------------------- the public functions


def public(function, name, **hyperparameters):
    return name, functools.partial(function, family=FAMILIES[name], **hyperparameters)


half_tanh = {"critic": lambda w, y: jnp.sum(w * jnp.tanh(y)), "critic_params": 0.5}
PUBLIC = {
    "muprop": public(control_variates.muprop, "bernoulli"),
    "muprop, categorical": public(control_variates.muprop, "categorical"),
    "muprop, subsets": public(control_variates.muprop, "subsets"),
    "rebar": public(control_variates.rebar, "bernoulli"),
    "rebar, categorical": public(control_variates.rebar, "categorical", scale=0.5),
    "relax": public(control_variates.relax, "bernoulli", **half_tanh),
    "relax, categorical": public(control_variates.relax, "categorical", **half_tanh),
    "rodeo": public(control_variates.rodeo, "bernoulli"),
    "rodeo, categorical": public(control_variates.rodeo, "categorical", num_samples=2),
}


def quadratic_of(name):
    def estimate(key, f, l):
        a = jnp.cos(jnp.arange(l.size)).reshape(l.shape).astype(l.dtype)
        return control_variates.quadratic(
            key, f, l, family=FAMILIES[name], linear=a, factors=jnp.stack([a, -2 * a])
        )

    return name, estimate


PUBLIC |= {f"quadratic, {name}": quadratic_of(name) for name in PROBLEMS}
NOT_OF_CLASSES = [name for name in PUBLIC if "categorical" not in name]


# The contract's tests transform every row; here f is the caller's, as is the critic's place in it.
@pytest.mark.parametrize("name", mostly_thorough(NOT_OF_CLASSES, ["relax"]))
def test_transformations(name):
    law_name, estimate = PUBLIC[name]
    check_transformations(estimate, PROBLEMS[law_name].logits)


# Of the catalog's rows the contract's tests ask for the same in float32.
@pytest.mark.thorough
@pytest.mark.parametrize("name", PUBLIC)
def test_extremes(name):
    law_name, estimate = PUBLIC[name]
    means = [check_extremes(estimate, law_name, t) for t in (np.float32, jnp.bfloat16.dtype)]
    close(means[0], means[1], rtol=0, atol=0.1)


def test_errors_name_the_argument():
    traced = lambda call, f, l: jax.eval_shape(lambda key, l: call(key, f, l), KEY, l)
    bare = Family("bare", bernoulli.family.sample, bernoulli.family.log_prob)
    of = lambda function, family=bernoulli.family, **h: functools.partial(
        getattr(control_variates, function), family=family, **h
    )
    tanh = {"critic": tanh_critic, "critic_params": 1.0}
    integer = lambda x: jnp.int32(1)
    cases = [
        (of("quadratic", num_samples=1, linear=np.zeros(4)), "num_samples: got 1.*need"),
        (of("rodeo", num_samples=1), "num_samples: got 1.*need"),
        (of("quadratic", linear=np.zeros(3)), "linear: got .*need"),
        (of("quadratic", linear=np.zeros(4), factors=np.zeros(4)), "factors: got .*need"),
        (of("quadratic", bare, linear=np.zeros(4)), "family: got bare.*need"),
        (of("muprop", bare), "family: got bare.*need"),
        (of("rebar", temperature=-1.0), "temperature: got -1.0.*need"),
        (of("relax", temperature=0.0, **tanh), "temperature: got 0.0.*need"),
        (of("relax", critic=3, critic_params=1.0), "critic: got 3, need a function"),
        (of("relax", critic=lambda w, y: y, critic_params=1.0), "critic: got .*need"),
    ]
    for name, h in (("rebar", {}), ("relax", tanh), ("rodeo", {})):
        for family in (subsets.family(2), bare):
            cases.append((of(name, family, **h), f"family: got {family.name[:7]}.*need.*{name}"))
    for call, words in cases:
        kind = TypeError if "need a function" in words else ValueError
        with pytest.raises(kind, match=words):
            traced(call, jnp.sum, np.zeros(4))
    for law_name, estimate in PUBLIC.values():
        l = PROBLEMS[law_name].logits
        for kind, f, got in ((ValueError, lambda x: x, "float"), (TypeError, integer, "int")):
            with pytest.raises(kind, match=f": got a value {got}.*need"):
                traced(estimate, f, l)
        with pytest.raises(TypeError, match="(params|logits|linear): got int.*need"):
            traced(estimate, jnp.sum, np.zeros(l.shape, int))


# -------------------------------------------------------------------- trained control variates


def test_double_cv_learns_its_scale():
    """D = 200, p = .7: from 0, by the scalar's own gradient, to 1 / 50 of the variance."""
    l = jnp.full(200, logit(0.7))
    f = lambda x: jnp.mean((x - 0.499) ** 2)
    estimate = lambda scale, l, key: score.double_cv(
        key, f, l, family=bernoulli.family, scale=scale
    )
    adam = optax.adam(2e-4)

    def step(carry, key):
        scale, state = carry
        loss = lambda scale: jnp.mean(
            jax.vmap(estimate, (None, None, 0))(scale, l, jax.random.split(key, 16))
        )
        updates, state = adam.update(jax.grad(loss)(scale), state)
        return (scale + updates, state), None

    zero = jnp.zeros(())
    keys = jax.random.split(KEY, 200)
    with jax.numpy_dtype_promotion("standard"):  # optax is not made for strict
        (scale, _), _ = jax.jit(lambda: jax.lax.scan(step, (zero, adam.init(zero)), keys))()

    @jax.jit
    def variance(scale):
        keys = jax.random.split(jax.random.key(1), 20_000)
        gradients = jax.vmap(jax.grad(estimate, 1), (None, None, 0))(scale, l, keys)
        return jnp.mean(jnp.var(gradients, axis=0))

    rloo, learned = variance(zero), variance(scale)
    close(rloo, 8.77e-10, rtol=0.05)
    close(variance(jnp.ones(())), 3.6e-5, rtol=0.1)
    assert rloo > 50 * learned and abs(scale - 0.00488) < 5e-4


def test_double_cv_of_subsets():
    """n = 10, k = 5, scale 1: at most a fifth of rloo's variance, by all pairs of subsets."""
    rng = np.random.default_rng(0)
    l, c = rng.normal(size=(2, 10))
    f = lambda x: jnp.sum((x - c) ** 2)
    x, weights = all_draws(k_hots(10, 5), l, 2)
    family = subsets.family(5)
    variances = []
    for scale in (0.0, 1.0):
        core = lambda x, scale=scale: jax.grad(
            lambda l: score._double_cv(x, f, l, family, np.float64(scale))
        )(l)
        mean, total = mean_and_variance(weights, np.asarray(jax.jit(jax.vmap(core))(x)))
        values = np.sum((k_hots(10, 5) - c) ** 2, -1)
        close(mean, expectation(k_hots(10, 5), l, values)[1], rtol=1e-9, atol=1e-12)
        variances.append(total)
    assert variances[0] > 5 * variances[1]


def test_relax_toy():
    """f = (b - .499)^2 from p = 1/2, one adam for logit, critic and log-temperature together."""
    f = lambda b: (b - 0.499) ** 2

    def critic(params, y):
        return params["out"] @ jnp.tanh(params["in"] * y + params["bias"])

    shared = {"l": jnp.zeros(()), "log_t": jnp.log(0.5)}
    start = {
        "reinforce": lambda key: shared,
        "rebar": lambda key: {**shared, "scale": jnp.ones(())},
        "relax": lambda key: {
            **shared,
            "critic": {
                name: jax.random.normal(k, (10,)) * s
                for name, k, s in zip(
                    ("in", "bias", "out"), jax.random.split(key, 3), (1, 1, 0.1), strict=True
                )
            },
        },
    }
    bit = {"family": bernoulli.family}
    estimates = {
        "reinforce": lambda key, p: score.reinforce(key, f, p["l"], **bit),
        "rebar": lambda key, p: control_variates.rebar(
            key, f, p["l"], **bit, temperature=jnp.exp(p["log_t"]), scale=p["scale"]
        ),
        "relax": lambda key, p: control_variates.relax(
            key,
            f,
            p["l"],
            **bit,
            critic=critic,
            critic_params=p["critic"],
            temperature=jnp.exp(p["log_t"]),
        ),
    }
    adam = optax.adam(0.01)

    def train(name, seed):
        first, rest = jax.random.split(jax.random.key(seed))
        params = start[name](first)

        def step(carry, key):
            params, state = carry
            gradient = jax.grad(lambda p: estimates[name](key, p))(params)
            updates, state = adam.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(rest, 10_000)
        return jax.nn.sigmoid(jax.lax.scan(step, (params, adam.init(params)), keys)[0][0]["l"])

    every = {name: jax.vmap(functools.partial(train, name)) for name in start}
    with jax.numpy_dtype_promotion("standard"):  # optax is not made for strict
        ends = jax.jit(lambda seeds: {name: run(seeds) for name, run in every.items()})(
            np.arange(6)
        )
    median = {name: np.median(p) for name, p in ends.items()}
    assert median["reinforce"] > 0.2 and median["rebar"] > 0.2 and median["relax"] < 0.15, median


# ------------------------------------------------------------------------------------------ attach


def test_attach():
    """The value bit for bit, beside -inf and inf too; the gradient in every transformation."""
    value, l = np.float64(1 / 3), np.array([0.1, -np.inf, 2])
    g = np.array([1.0, np.inf, -2])
    f = lambda l: attach(value, l, g)
    assert f(l) == value and jax.jit(f)(l) == value
    g = np.array([1.0, 5, -2])
    f = lambda l: attach(value, l, g)
    for gradient in (jax.grad(f), jax.jit(jax.grad(f)), jax.grad(jax.jit(f))):
        assert np.array_equal(gradient(l), g)
    assert np.array_equal(jax.grad(jax.checkpoint(f))(l), g)
    assert np.array_equal(jax.grad(lambda l: 3 * f(l))(l), 3 * g)
    assert np.all(np.isnan(jax.hessian(f)(l)))
    own = jax.hessian(lambda l: attach(value, l, l * l))(g)  # g is a number, whatever it is made of
    assert np.all(np.isnan(own))
    mixed = lambda l, w: attach(w @ w, l, g)
    for i, j in ((0, 1), (1, 0)):
        assert np.all(np.isnan(jax.jacrev(jax.grad(mixed, i), j)(l, l[::2])))
        assert np.all(np.isnan(jax.jacfwd(jax.grad(mixed, i), j)(l, l[::2])))
    assert np.array_equal(jax.hessian(mixed, 1)(l, l[::2]), 2 * np.eye(2))
    tangent = jax.jvp(f, (l,), (np.array([1.0, 2, 3]),))
    assert tangent == (value, 5)
    ls = np.stack([l, l, l])
    each = lambda l, scale: attach(scale * value, l, scale * g)
    mean = lambda ls: jnp.mean(jax.vmap(each)(ls, np.arange(3.0)))
    close(jax.grad(mean)(ls), np.arange(3)[:, None] * g / 3, rtol=1e-15)
    scan = lambda l: jax.lax.scan(lambda c, s: (c + each(l, s), None), 0.0, np.arange(3.0))[0]
    assert np.array_equal(jax.grad(scan)(l), 3 * g)
    tree = {"a": l, "b": (np.float64(2), l[:2])}
    weights = jax.tree.map(lambda x: np.ones_like(x) * 7, tree)
    gradient = jax.grad(lambda t: attach(value, t, weights))(tree)
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), gradient, weights))
    assert jax.grad(lambda w: attach(w**2, l, w * g))(3.0) == 6  # g is a number


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_attach_in_narrow_dtypes(dtype):
    """The value's dtype need not be that of params; the tangent's sum is taken in float32."""
    l, g = jnp.ones(4_096, dtype), jnp.full(4_096, 0.01, dtype)
    wide = jax.grad(lambda w: attach(l[0], {"l": l, "w": w}, {"l": g, "w": 2 * w}))(3.0)
    assert wide == 6 and wide.dtype == np.float64
    for value in (jnp.float32(1.5), jnp.asarray(1.5, dtype)):
        f = lambda l, value=value: attach(value, l, g)
        out, tangent = jax.jvp(f, (l,), (jnp.ones_like(l),))
        assert out.dtype == tangent.dtype == value.dtype and out == 1.5
        close(tangent, 4_096 * float(g[0]), rtol=0.01)
        gradient = jax.grad(f)(l)
        assert gradient.dtype == dtype and np.array_equal(gradient, g)
