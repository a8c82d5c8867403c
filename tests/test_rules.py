"""The one custom rule of hard draws, on toys whose derivatives of every order are known, and the
public draws that borrow the slope of a relaxed one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import close

from relaxjax import _rules, bernoulli, categorical, top_k

X = 0.7


def nth(f, n):
    for _ in range(n):
        f = jax.grad(f)
    return jax.jit(f)


def growing(g, d, x):
    return (g * d * x,)


def constant(g, d, x):
    return (g * jax.lax.stop_gradient(d) * x,)


def test_the_value_is_the_draw_and_the_gradient_the_rules():
    """A cotangent of None is 0, and so is that of the draw."""
    rule = lambda g, d, x, y: (g * (d + 2 * x), None)
    d, x, y = np.array([0.0, 1.0]), np.array([0.3, -0.2]), np.ones(3)
    z, back = jax.vjp(lambda *a: _rules.hard(rule, *a), d, x, y)
    assert np.array_equal(z, d)
    dd, dx, dy = back(jnp.asarray([1.0, -2.0]))
    close(dx, [0.6, -1.2], rtol=1e-15)
    assert not np.any(dd) and not np.any(dy)


def test_derivatives_go_through_the_draw():
    """z' = z x wherever the draw stands, of z^2 at z = 1: 2 x, 4 x^2 + 2 and 8 x^3 + 12 x. A draw
    that the rule stored, and not the value of `hard`, would give 2 x^2 + 2 for the second."""
    f = lambda x: _rules.hard(growing, jnp.ones(()), x) ** 2
    for n, expected in enumerate((1, 2 * X, 4 * X**2 + 2, 8 * X**3 + 12 * X)):
        close(nth(f, n)(X), expected, rtol=1e-14)


def test_a_rule_may_hold_the_draw_for_a_constant():
    """There z' = x: of z^2 the second derivative is 2 x^2 + 2."""
    f = lambda x: _rules.hard(constant, jnp.ones(()), x) ** 2
    for n, expected in enumerate((1, 2 * X, 2 * X**2 + 2)):
        close(nth(f, n)(X), expected, rtol=1e-14)


def test_jit_vmap_and_scan():
    """Of all three orders, over a batch: the same as one by one."""
    f = lambda d, x: _rules.hard(growing, d, x) ** 2
    slopes = lambda d, x: [nth(lambda x: f(d, x), n)(x) for n in range(3)]
    d, x = np.array([0.0, 1.0, 1.0]), np.array([0.3, -0.2, 0.7])
    loop = np.transpose([slopes(*pair) for pair in zip(d, x, strict=True)])
    close(jax.jit(jax.vmap(slopes))(d, x), loop, rtol=1e-14)
    _, scanned = jax.lax.scan(lambda carry, pair: (carry, slopes(*pair)), None, (d, x))
    close(scanned, loop, rtol=1e-14)


@pytest.mark.parametrize(
    "hard, relaxed",
    [
        (bernoulli.straight_through_concrete, bernoulli.concrete),
        (categorical.straight_through_gumbel_softmax, categorical.gumbel_softmax),
        (
            functools.partial(top_k.straight_through, k=2),
            functools.partial(top_k.relaxed, k=2),
        ),
    ],
    ids=["bit", "one_hot", "k_hot"],
)
def test_a_borrowed_slope_is_that_of_the_relaxed_draw_with_the_same_noise(hard, relaxed):
    key = jax.random.key(0)
    logits = np.linspace(-1.5, 2.0, 24).reshape(6, 4)
    g = np.cos(np.arange(24.0)).reshape(6, 4)
    slope = lambda draw: jax.vjp(lambda l: draw(key, l, temperature=0.7), logits)[1](g)[0]
    close(slope(hard), slope(relaxed), rtol=1e-11, atol=1e-14)
