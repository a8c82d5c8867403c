"""The bridge between Dirichlet and Gaussian, against dense matrices and a numeric Hessian."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import central, close
from scipy.special import log_softmax, logsumexp, softmax

from relaxjax import laplace_bridge

# The same functions, compiled.
bridge = types.SimpleNamespace(
    **{
        name: jax.jit(getattr(laplace_bridge, name))
        for name in ("to_gaussian", "covariance", "to_dirichlet", "project")
    }
)
ALPHA = np.array([2, 0.5, 4])


def projector(classes):
    return np.eye(classes) - 1 / classes


def to_gaussian(alpha):
    P = projector(len(alpha))
    return P @ np.log(alpha), np.diag(P @ np.diag(1 / alpha) @ P)


def to_dirichlet(mean, variance):
    C = len(mean)
    return (1 - 2 / C + np.exp(mean + logsumexp(-mean) - 2 * np.log(C))) / variance


def project(mean, variance):
    P = projector(len(mean))
    return P @ mean, np.diag(P @ np.diag(variance) @ P)


def jacobian(f, args, k):
    """df/dargs[k] of a NumPy formula, dense, by central differences."""
    at = lambda x: f(*args[:k], x, *args[k + 1 :])
    rows = [central(lambda x, i=i: at(x)[i], args[k]) for i in range(len(f(*args)))]
    return np.stack(rows)


# -------------------------------------------------------------------------------------- oracles


def test_gaussian_oracles():
    mean, variance = bridge.to_gaussian(ALPHA)
    close(mean, (0.231049060, -1.155245301, 0.924196241), rtol=3e-9)
    close(variance, (0.472222222, 0.972222222, 0.388888889), rtol=2e-9)
    covariance = [
        [0.472222222, -0.527777778, 0.055555556],
        [-0.527777778, 0.972222222, -0.444444444],
        [0.055555556, -0.444444444, 0.388888889],
    ]
    close(bridge.covariance(ALPHA), covariance, rtol=1e-8)
    mean, variance = bridge.to_gaussian(np.array([1.5, 3]))
    close(mean, (-0.346573590, 0.346573590), rtol=2e-9)
    close(variance, (0.25, 0.25), rtol=1e-14)


def test_dirichlet_oracles():
    mean, variance = np.array([0.5, -1, 2]), np.array([0.3, 0.8, 0.5])
    alpha = bridge.to_dirichlet(mean, variance)
    close(alpha, (3.224007122, 0.593460726, 6.348272443), rtol=2e-9)
    projected = bridge.project(mean, variance)
    close(projected[0], (0, -1.5, 1.5), rtol=1e-14, atol=1e-15)
    close(projected[1], (0.277777778, 0.444444444, 0.344444444), rtol=2e-9)
    alpha = bridge.to_dirichlet(*projected)
    close(alpha, (3.481927692, 1.068229307, 9.215234191), rtol=2e-9)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_covariance_is_laplaces(classes):
    """Oracle: the pseudo-inverse of the Hessian at the mode, in the softmax basis.

    There the Dirichlet's density is prod softmax(x)_k^alpha_k, the Jacobian included.
    """
    rng = np.random.default_rng(0)
    alpha = rng.uniform(0.3, 5, size=classes)
    covariance = np.asarray(bridge.covariance(alpha))
    total, pi = alpha.sum(), alpha / alpha.sum()
    expected = np.linalg.pinv(total * (np.diag(pi) - np.outer(pi, pi)), hermitian=True)
    close(covariance, expected, rtol=1e-11, atol=1e-13)
    assert np.linalg.matrix_rank(covariance, tol=1e-10) == classes - 1
    close(covariance.sum(-1), np.zeros(classes), atol=1e-14 * covariance.max() * classes)
    mean, variance = bridge.to_gaussian(alpha)
    close(np.diag(covariance), variance, rtol=1e-13)
    # The mode and the Hessian of the density itself.
    log_density = lambda x: alpha @ log_softmax(x)
    close(central(log_density, np.asarray(mean)), np.zeros(classes), atol=1e-8)
    gradient = lambda x: alpha - alpha.sum() * softmax(x)
    hessian = [central(lambda x, i=i: gradient(x)[i], np.asarray(mean)) for i in range(classes)]
    pinv = np.linalg.pinv(-np.stack(hessian), rcond=1e-6)
    close(covariance, pinv, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_to_gaussian_is_its_dense_formula(classes):
    rng = np.random.default_rng(0)
    alpha = rng.uniform(0.3, 5, size=classes)
    mean, variance = bridge.to_gaussian(alpha)
    expected = to_gaussian(alpha)
    close(mean, expected[0], rtol=1e-12, atol=1e-14)
    close(variance, expected[1], rtol=1e-13)
    close(softmax(mean), alpha / alpha.sum(), rtol=1e-13)
    assert abs(np.sum(mean)) < 1e-13


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_round_trips(classes):
    rng = np.random.default_rng(0)
    alpha = np.exp(rng.normal(size=(200, classes)) * 2)
    back = bridge.to_dirichlet(*bridge.to_gaussian(alpha))
    close(back, alpha, rtol=1e-12)
    mean, variance = bridge.to_gaussian(alpha)
    again = bridge.to_gaussian(back)
    close(again[0], mean, rtol=1e-11, atol=1e-12)
    close(again[1], variance, rtol=1e-11)
    shifted = bridge.to_dirichlet(mean + 3.7, variance)
    close(shifted, alpha, rtol=1e-11)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_project_is_a_dense_projection(classes):
    """Oracle: the diagonal of P diag(v) P. Twice is not once, for the diagonal."""
    rng = np.random.default_rng(0)
    mean, variance = rng.normal(size=classes), rng.uniform(0.2, 2, size=classes)
    actual, expected = bridge.project(mean, variance), project(mean, variance)
    close(actual[0], expected[0], rtol=1e-12, atol=1e-15)
    close(actual[1], expected[1], rtol=1e-13)
    again = bridge.project(*actual)
    close(again[0], actual[0], rtol=1e-12, atol=1e-15)
    close(again[1], project(*expected)[1], rtol=1e-13)
    assert not np.allclose(again[1], actual[1])
    alpha = bridge.to_dirichlet(mean, variance)
    close(alpha, to_dirichlet(mean, variance), rtol=1e-13)


# ------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("classes", [2, 3])
def test_gradients(classes):
    """Oracle: dense central-difference Jacobians of the NumPy formulas."""
    rng = np.random.default_rng(0)
    alpha = rng.uniform(0.5, 3, size=classes)
    mean, variance = rng.normal(size=classes), rng.uniform(0.2, 2, size=classes)

    @jax.jit
    def dense(alpha, mean, variance):
        return (
            jax.jacrev(laplace_bridge.to_gaussian)(alpha),
            jax.jacrev(laplace_bridge.covariance)(alpha),
            jax.jacrev(laplace_bridge.to_dirichlet, (0, 1))(mean, variance),
            jax.jacrev(laplace_bridge.project, (0, 1))(mean, variance),
        )

    gaussian, covariance, dirichlet, projected = dense(alpha, mean, variance)
    for k in range(2):
        expected = jacobian(lambda a, k=k: to_gaussian(a)[k], (alpha,), 0)
        close(gaussian[k], expected, rtol=1e-8, atol=1e-9)
    P = projector(classes)
    expected = jacobian(lambda a: (P @ np.diag(1 / a) @ P).ravel(), (alpha,), 0)
    close(np.reshape(covariance, (-1, classes)), expected, rtol=1e-7, atol=1e-9)
    for k in range(2):
        close(dirichlet[k], jacobian(to_dirichlet, (mean, variance), k), rtol=1e-7, atol=1e-8)
    close(projected[0][0], projector(classes), rtol=1e-14, atol=1e-16)
    close(projected[1][1], projector(classes) ** 2, rtol=1e-13, atol=1e-16)
    assert not np.any(projected[0][1]) and not np.any(projected[1][0])


def test_second_derivatives():
    """Oracle: central differences of the first derivatives."""

    def f(a):
        mean, variance = laplace_bridge.project(a[:3], jnp.exp(a[3:]))
        alpha = laplace_bridge.to_dirichlet(mean, variance)
        return jnp.sum(jnp.sin(alpha)) + jnp.sum(jnp.square(laplace_bridge.covariance(alpha)))

    a = np.array([0.3, -0.2, 0.5, 0.1, -0.4, 0.2])
    gradient = jax.jit(jax.grad(f))
    actual = jax.jit(jax.jacrev(gradient))(a)
    for i, e in enumerate(np.eye(6) * 1e-5):
        expected = (gradient(a + e) - gradient(a - e)) / 2e-5
        close(actual[:, i], expected, rtol=1e-6, atol=1e-7)


# ------------------------------------------------------------------------------------ the edges


def test_extremes():
    """Concentrations far apart: still a round trip, to the digits of the largest term."""
    alpha = np.array([1e-4, 1.0, 1e4])
    mean, variance = bridge.to_gaussian(alpha)
    close(bridge.to_dirichlet(mean, variance), alpha, rtol=1e-9)
    mean = np.array([300.0, -300.0, 0.0])  # exp(600) fits float64, exp(mean) times it as well
    close(bridge.to_dirichlet(mean, np.ones(3)), to_dirichlet(mean, np.ones(3)), rtol=1e-12)


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_concentration_is_positive(bad):
    alpha = np.array([[2.0, 0.5, 4.0], [2.0, bad, 4.0]])
    for function in (laplace_bridge.to_gaussian, laplace_bridge.covariance):
        with pytest.raises(ValueError, match="^concentration: got (.|\n)*need"):
            function(alpha)
        for x in jax.tree.leaves(jax.jit(function)(jnp.asarray(alpha))):
            nan = np.isnan(x).reshape(2, -1)
            assert not np.any(nan[0]) and np.all(nan[1])


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_variance_is_positive(bad):
    mean, variance = np.zeros((2, 3)), np.array([[2.0, 0.5, 4.0], [2.0, bad, 4.0]])
    for function in (laplace_bridge.to_dirichlet, laplace_bridge.project):
        with pytest.raises(ValueError, match="^variance: got (.|\n)*need"):
            function(mean, variance)
    alpha = np.isnan(bridge.to_dirichlet(mean, variance))
    assert not np.any(alpha[0]) and alpha[1, 1]
    projected = np.isnan(bridge.project(mean, variance)[1])
    assert not np.any(projected[0]) and np.all(projected[1])  # every class has a share of the sum


def test_one_class_is_too_few():
    one = np.ones((4, 1))
    for call, words in (
        (lambda: laplace_bridge.to_gaussian(one), "concentration: got"),
        (lambda: laplace_bridge.covariance(one), "concentration: got"),
        (lambda: laplace_bridge.to_dirichlet(one, one), "(mean|variance): got"),
        (lambda: laplace_bridge.project(one, one), "(mean|variance): got"),
    ):
        with pytest.raises(ValueError, match=f"^{words}.*need"):
            call()


def test_a_nan_mean_is_nan():
    mean = jnp.asarray([[0.0, jnp.nan, 1.0], [0.0, 1.0, 2.0]])
    projected = np.isnan(bridge.project(mean, np.ones((2, 3)))[0])
    assert np.all(projected[0]) and not np.any(projected[1])
