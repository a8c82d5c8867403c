"""Ideas against `quadratic` at two evaluations of f, on both digits boards.

Each is audited as unbiased on a small problem, then trained as its row of the board is: eight
factors from a network of 256 units, Adam 2e-3, where it says nothing else. An idea wins where it is
ahead by more than three combined standard errors on both boards. `results/ideas.json` keeps all of
them, failures included. The last row is no idea: it is what none that leaves the decoder its two
samples can be expected to beat.
"""

import argparse
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from _common import digest, read, write
from leaderboard import (
    _FACTORS,
    BATCH,
    SHAPES,
    Network,
    Row,
    digits,
    initialize,
    layers,
    run,
    together,
)
from relaxjax import _surrogate, audit, bernoulli, categorical, control_variates, score
from relaxjax._surrogate import attach, attach_variance, constants
from relaxjax.score import leave_one_out

FAMILIES = {"12 bits": bernoulli.family, "8x4": categorical.family}
MODULES = ["control_variates", "score"]


def parts(family, l, X):
    """phi -> h at the samples, its slopes there, and the gradient of its mean."""
    flat = lambda x: x.reshape(*x.shape[: x.ndim - l.ndim], -1)

    def mean(l, phi):
        linear, factors = phi
        mu, pull = _surrogate.mean_and_pullback(family, l)
        spread = jnp.sum(factors * jax.vmap(pull)(factors))
        return jnp.sum(linear * mu) + jnp.sum((flat(factors) @ flat(mu)) ** 2) + spread

    def of(phi):
        linear, factors = phi
        projections = flat(X) @ flat(factors).T
        h = flat(X) @ flat(linear) + jnp.sum(projections**2, axis=-1)
        slopes = linear[None] + 2 * jnp.tensordot(projections, factors, 1)
        return h, slopes, jax.grad(mean)(l, phi)

    return of


def double_cv(family, scale=0.5):
    """Double-CV instead of RLOO on what the quadratic leaves: the decoder's own gradient at the
    other sample, less the quadratic's, makes a second control variate."""

    def estimate(key, f, logits, linear, factors):
        x = _surrogate.draw(key, logits, family, 2)
        values, slopes = _surrogate.evaluate_with_slopes(f, x)
        l, F, V, X = constants(logits, values, slopes, x)
        of = parts(family, l, X)
        mu, pull = _surrogate.mean_and_pullback(family, l)

        def gradient(phi):
            h, h_slopes, exact = of(phi)
            left = V - h_slopes
            t = jax.vmap(_surrogate.inner)(_surrogate.others(left), X - mu[None])
            g = _surrogate.score(family, leave_one_out(F - h - scale * t), X, l)
            return g + scale * pull(jnp.mean(left, axis=0)) + exact

        return attach_variance(jnp.mean(values), logits, (linear, factors), gradient)

    return estimate


def fitted(family, error):
    """quadratic, its coefficients fitted by another error than the variance of the gradient; of the
    values and slopes that remain at the two samples."""

    def estimate(key, f, logits, linear, factors):
        x = _surrogate.draw(key, logits, family, 2)
        values, slopes = _surrogate.evaluate_with_slopes(f, x)
        l, F, V, X = constants(logits, values, slopes, x)
        of = parts(family, l, X)
        phi = jax.lax.stop_gradient((linear, factors))

        def of_rest(phi):
            h, h_slopes, _ = of(phi)
            return error(F - h, V - h_slopes)

        h, _, exact = of(phi)
        g = _surrogate.score(family, leave_one_out(F - h), X, l) + exact
        value = attach(jnp.mean(values), logits, g)
        return attach(value, (linear, factors), jax.grad(of_rest)(phi))

    return estimate


def of_difference(left, slopes):
    return (left[0] - left[1]) ** 2


def of_slopes(left, slopes):
    return jnp.sum(slopes**2)


def antithetic(family):
    """DisARM instead of RLOO on what the quadratic leaves: bits alone have such pairs."""

    def estimate(key, f, logits, linear, factors):
        noise = jax.random.logistic(key, (1, *logits.shape), logits.dtype)
        values, l, F, B = score._antithetic(noise, f, logits)
        of = parts(family, l, B[:, 0])

        def gradient(phi):
            h, _, exact = of(phi)
            left = F[:, 0] - h
            pair = (left[0] - left[1]) * (B[0, 0] - B[1, 0]) / 2
            return pair * jax.nn.sigmoid(jnp.abs(l)) + exact

        return attach_variance(jnp.mean(values), logits, (linear, factors), gradient)

    return estimate


def without_replacement(family):
    """Two different samples, and the unordered-set estimator (arXiv:2002.06043, eq. 21) of what the
    quadratic leaves: with p of each, (1 - p_1) (1 - p_2) / (2 - p_1 - p_2) for RLOO's 1/2. Where
    the law is nearly sure RLOO's two samples are mostly one, and say nothing."""

    def estimate(key, f, logits, linear, factors):
        x = two_different(key, jax.lax.stop_gradient(logits), family)
        values = _surrogate.evaluate(f, x)
        l, F, X = constants(logits, values, x)
        of = parts(family, l, X)
        missed = -jnp.expm1(jax.vmap(family.log_prob, (0, None))(X, l))
        share = missed[::-1] / jnp.sum(missed)

        def gradient(phi):
            h, _, exact = of(phi)
            left = F - h
            a = share * missed * (left - left[::-1])
            return _surrogate.score(family, a, X, l) + exact

        value = jnp.sum(share.astype(values.dtype) * values)
        return attach_variance(value, logits, (linear, factors), gradient)

    return estimate


def two_different(key, logits, family):
    """A sample, and one given that it is not that: equal to it in the variables before i, not in i,
    free after it."""
    keys = jax.random.split(key, 4)
    x, free = jax.vmap(family.sample, (0, None))(keys[:2], logits)
    bits = family is bernoulli.family
    each = bernoulli.log_prob(x, logits) if bits else categorical.log_prob(x, logits)
    before = jnp.cumsum(each) - each
    i = jax.random.categorical(keys[2], before + jnp.log(-jnp.expm1(each)))
    other = 1 - x
    if not bits:
        rest = jnp.where(x == 1, -jnp.inf, logits)
        other = jax.nn.one_hot(jax.random.categorical(keys[3], rest), x.shape[-1], dtype=x.dtype)
    at = jnp.arange(len(x)).reshape(-1, *(1,) * (x.ndim - 1))
    y = jnp.where(at < i, x, jnp.where(at == i, other, free))
    return jnp.stack([x, y])


def fitted_pairs(family):
    """RLOO on what a full polynomial of degree two leaves, <a, x> + sum_ij W_ij x_i x_j over
    entries of different variables, fitted to the difference of f between the samples."""

    def estimate(key, f, logits, linear, pairs):
        x = _surrogate.draw(key, logits, family, 2)
        values = _surrogate.evaluate(f, x)
        l, F, X = constants(logits, values, x)
        flat = X.reshape(2, -1)
        variable = np.arange(l.size) // (1 if family is bernoulli.family else l.shape[-1])
        different = jnp.asarray(variable[:, None] != variable)
        phi = jax.lax.stop_gradient((linear, pairs))

        def rest(phi):
            linear, pairs = phi
            pairs = jnp.where(different, pairs + pairs.T, 0) / 2
            return F - flat @ linear.ravel() - jnp.sum((flat @ pairs) * flat, axis=-1), pairs

        left, symmetric = rest(phi)
        mu, pull = _surrogate.mean_and_pullback(family, l)
        exact = pull(phi[0] + 2 * (symmetric @ mu.ravel()).reshape(mu.shape))
        g = _surrogate.score(family, leave_one_out(left), X, l) + exact
        value = attach(jnp.mean(values), logits, g)
        fit = jax.grad(lambda phi: of_difference(rest(phi)[0], None))(phi)
        return attach(value, (linear, pairs), fit)

    return estimate


def pairs_network(board, epochs, units=256):
    """Of centered inputs, its last layer from 0; no units is a linear map. Adam from 2e-3 down to
    1e-4."""
    shape = SHAPES[board]
    n, uniform = math.prod(shape), 1 / (shape[1] if len(shape) > 1 else 2)
    images = digits()
    center = jnp.mean(images, axis=0)

    def start(key):
        sizes = ((64 + n, units), (units, n + n * n)) if units else ((64 + n, n + n * n),)
        *hidden, (w, b) = initialize(key, sizes)
        return [*hidden, (0 * w, b)]

    def learned(params, x, q):
        inputs = 2 * jnp.concatenate([x - center, q.ravel() - uniform])
        out = layers(params, inputs) if units else inputs @ params[0][0] + params[0][1]
        return {"linear": out[:n].reshape(shape), "pairs": out[n:].reshape(n, n)}

    schedule = optax.cosine_decay_schedule(2e-3, len(images) // BATCH * epochs, alpha=0.05)
    return Network(start, learned, optax.adam(schedule))


def exact_in_logits(family):
    """The exact gradient in logits, by all states; the decoder's own at two samples."""

    def estimate(key, f, logits, linear, factors):
        values = _surrogate.evaluate(f, _surrogate.draw(key, logits, family, 2))
        l = jax.lax.stop_gradient(logits)
        g = jax.grad(lambda l: score.exact(f, l, family=family))(l)
        return attach(jnp.mean(values), logits, g)

    return estimate


class Idea(NamedTuple):
    """An estimator of two evaluations with something learned.

    Fields:
      make: family -> the estimator.
      network: (board, epochs) -> what is behind that; None is that of the row on the board.
      boards: where it can be tried.
      evaluations: of f.
    """

    make: Callable[..., Any]
    network: Callable[..., Network] | None = None
    boards: tuple[str, ...] = tuple(FAMILIES)
    evaluations: int = 2


IDEAS = {
    "quadratic": Idea(lambda family: functools.partial(control_variates.quadratic, family=family)),
    "double_cv on the rest, scale 1/2": Idea(double_cv),
    "double_cv on the rest, scale 1": Idea(functools.partial(double_cv, scale=1.0)),
    "fitted to the difference of f": Idea(functools.partial(fitted, error=of_difference)),
    "fitted to the slopes of f": Idea(functools.partial(fitted, error=of_slopes)),
    "antithetic pairs": Idea(antithetic, boards=("12 bits",)),  # of bits alone
    "two different samples": Idea(without_replacement),
    "all pairs, fitted, centered network": Idea(fitted_pairs, pairs_network),
    "all pairs, fitted, linear map": Idea(fitted_pairs, functools.partial(pairs_network, units=0)),
    "no idea: exact in logits": Idea(exact_in_logits, evaluations=4096),
}


def audited(idea, family):
    """The largest |z| of the bias, with fixed coefficients, at 100,000 draws."""
    shape = (5,) if family is bernoulli.family else (3, 4)
    rng = np.random.default_rng(0)
    w, v, l, a = (rng.normal(size=s) for s in ((8, math.prod(shape)), 8, shape, shape))
    w, v, l, a, u = (
        jnp.asarray(x, jnp.float32) for x in (w, v, l, a, rng.normal(size=(2, *shape)))
    )
    more = {"pairs": jnp.outer(a, u[0])} if idea.network else {"factors": u}
    estimate = idea.make(family)
    result = audit.measure(
        lambda key, f, l: estimate(key, f, l, linear=a, **more),
        lambda x: v @ jnp.tanh(w @ x.reshape(-1)),
        l,
        family=family,
        key=jax.random.key(0),
        num_draws=100_000,
    )
    return round(float(np.max(np.abs(result.z))), 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    results = read("ideas")
    code = {"modules": MODULES, "code": digest(MODULES), "epochs": args.epochs}
    if {k: results.get(k) for k in code} != code:
        results = code | {"rows": []}
    done = {(row["idea"], row["board"]) for row in results["rows"]}
    jobs = {
        (idea, board): functools.partial(trained, idea, board, args)
        for idea in IDEAS
        for board in IDEAS[idea].boards
        if (idea, board) not in done
    }
    for _, row in together(jobs):
        results["rows"].append(row)
        order = list(itertools.product(IDEAS, FAMILIES))
        results["rows"].sort(key=lambda row: order.index((row["idea"], row["board"])))
        write("ideas", results)
        print(
            f"{row['idea']:36} {row['board']:8} z {row['largest z of the bias']}  "
            f"{row['negative_elbo']:.3f} +- {row['standard_error']:.3f}",
            flush=True,
        )


def trained(name, board, args):
    idea, family = IDEAS[name], FAMILIES[board]
    row = Row(board, f"{family.name}/quadratic", {}, seeds=args.seeds, network=_FACTORS)
    z = audited(idea, family)
    network = idea.network and idea.network(board, args.epochs)
    result = run(row, args.epochs, idea.make(family), network)
    result["evaluations"] = idea.evaluations
    return {"idea": name, "board": board, "largest z of the bias": z, **result}


if __name__ == "__main__":
    main()
