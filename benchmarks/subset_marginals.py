"""Inclusion marginals of k of n items, forward and backward, in every formulation tried.

A scan over items (that of relaxjax.subsets, and the log-space table differentiated by JAX), divide
and conquer (a tree of polynomial products, of log-coefficients or of the probabilities of items
whose sum has the mean k) and an associative scan over prefixes.
"""

import jax
import jax.numpy as jnp

from relaxjax import subsets

NEVER = -1e30  # finite, so that no derivative meets -inf - -inf


def table_scan(l, k):
    """log e_j of the items so far, by one scan; the marginals are its gradient."""

    def total(l):
        def add(a, x):
            return jnp.logaddexp(a, jnp.append(NEVER, a[:-1]) + x), None

        a = jnp.full(k + 1, NEVER, l.dtype).at[0].set(0)
        return jax.lax.scan(add, a, l)[0][k]

    return jax.grad(total)(l)


def product(a, b, k):
    """Log-coefficients of the products of polynomials (m, da + 1), (m, db + 1), to degree k."""
    m, da, db = a.shape[0], a.shape[-1] - 1, b.shape[-1] - 1
    width, d = da + db + 1, min(da + db, k)
    # b, shifted by i in row i: a row one longer than the width moves each by one.
    row = jnp.pad(b, ((0, 0), (0, width - db)), constant_values=NEVER)
    shifted = jnp.broadcast_to(row[:, None], (m, da + 1, width + 1)).reshape(m, -1)
    shifted = shifted[:, : (da + 1) * width].reshape(m, da + 1, width)[..., : d + 1]
    terms = a[..., None] + shifted
    top = jax.lax.stop_gradient(jnp.max(terms, axis=1))
    return top + jnp.log(jnp.sum(jnp.exp(terms - top[:, None]), axis=1))


def tree(l, k):
    """Divide and conquer in log space; the marginals are the gradient of its root."""

    def total(l):
        n = l.shape[0]
        a = jnp.stack([jnp.zeros(n, l.dtype), l], axis=-1)
        while a.shape[0] > 1:
            if a.shape[0] % 2:
                one = jnp.full((1, a.shape[1]), NEVER, l.dtype).at[0, 0].set(0)
                a = jnp.concatenate([a, one])
            a = product(a[::2], a[1::2], k)
        return a[0, k]

    return jax.grad(total)(l)


def associative(l, k):
    """All prefixes and all suffixes by associative scans; mu from their products."""
    n = l.shape[0]
    a = jnp.full((n, k + 1), NEVER, l.dtype).at[:, 0].set(0).at[:, 1].set(l)
    multiply = lambda a, b: product(a, b, k)
    one = jnp.full((1, k + 1), NEVER, l.dtype).at[0, 0].set(0)
    before = jnp.concatenate([one, jax.lax.associative_scan(multiply, a)])
    after = jnp.concatenate([jax.lax.associative_scan(multiply, a, reverse=True), one])
    without = jax.nn.logsumexp(before[:-1, :k] + after[1:, k - 1 :: -1], axis=-1)
    return jnp.exp(l + without - before[-1, k])


def plain_product(a, b, k):
    """As product, of coefficients themselves."""
    m, da, db = a.shape[0], a.shape[-1] - 1, b.shape[-1] - 1
    width, d = da + db + 1, min(da + db, k)
    row = jnp.pad(b, ((0, 0), (0, width - db)))
    shifted = jnp.broadcast_to(row[:, None], (m, da + 1, width + 1)).reshape(m, -1)
    shifted = shifted[:, : (da + 1) * width].reshape(m, da + 1, width)[..., : d + 1]
    return jnp.einsum("mi,mij->mj", a, shifted)


def tilted_tree(l, k):
    """Divide and conquer on probabilities, after a shift that gives their sum the mean k.

    The shift is by a few unsafeguarded Newton steps, enough for a benchmark of normal logits only.
    """
    n = l.shape[0]

    def newton(c, _):
        p = jax.nn.sigmoid(jax.lax.stop_gradient(l) - c)
        m, v = jnp.mean(p), jnp.mean(p * (1 - p))
        step = (jnp.log(m / (1 - m)) - jnp.log(k / (n - k))) * m * (1 - m) / v
        return c + step, None

    c, _ = jax.lax.scan(newton, jnp.mean(jax.lax.stop_gradient(l)), None, length=6)

    def total(l):
        p = jax.nn.sigmoid(l - c)
        a = jnp.stack([1 - p, p], axis=-1)
        while a.shape[0] > 1:
            if a.shape[0] % 2:
                a = jnp.concatenate([a, jnp.zeros((1, a.shape[1]), l.dtype).at[0, 0].set(1)])
            a = plain_product(a[::2], a[1::2], k)
        return jnp.log(a[0, k]) + jnp.sum(jax.nn.softplus(l - c))

    return jax.grad(total)(l)


FORMULATIONS = {
    "scan over items, ratios (ours)": lambda l, k: subsets.mean(l, k),
    "scan over items, log table": table_scan,
    "divide and conquer, log space": tree,
    "divide and conquer, tilted": tilted_tree,
    "associative scan": associative,
}


def both(f, k):
    def run(l, g):
        mu, back = jax.vjp(lambda l: f(l, k), l)
        return mu, back(g)[0]

    return run
