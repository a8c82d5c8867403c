"""The published toy problems, whose answers are known: a part each, whose rows are estimators."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import relaxjax
from _harness import asked, descend, jobs, measure

rounded = lambda x: float(f"{x:.4g}")


def relax(name, steps=10_000):
    """One bit, f = (b - .499)^2 from p = 1/2 (Grathwohl et al. 2018): p after steps of Adam .01,
    the median of six seeds; it should go to 0, and f's two values differ by .002."""
    f = lambda b: (b - 0.499) ** 2
    critic = lambda c, z: c["out"] @ jnp.tanh(c["in"] * z + c["bias"])
    learned = {"rebar": ("temperature", "scale"), "relax": ("temperature", "critic_params")}
    fixed = {"critic": critic} if name.endswith("relax") else {}

    def loss(p, key):
        p = {**p, "temperature": jnp.exp(p["log_temperature"])}
        given = {h: p[h] for h in learned.get(name.split("/")[1], ())} | fixed
        return relaxjax.estimator(name, **given)(key, f, p["logits"])

    def p_of(seed):
        start, rest = jax.random.split(jax.random.key(seed))
        keys = zip(("in", "bias", "out"), jax.random.split(start, 3), strict=True)
        normal = {name: jax.random.normal(key, (10,)) for name, key in keys}
        params = {
            "logits": jnp.zeros(()),
            "log_temperature": jnp.log(0.5),
            "scale": jnp.ones(()),
            "critic_params": {**normal, "out": normal["out"] / 10},
        }
        end = descend(loss, params, optax.adam(0.01), jax.random.split(rest, steps))
        return jax.nn.sigmoid(end["logits"])

    return {"p": rounded(jnp.median(jax.jit(jax.vmap(p_of))(jnp.arange(6))))}


def polynomial(name, bits=128, c=0.45, batch=64, steps=4_000):
    """f = mean (b - .45)^2 (Liu et al. 2023): E[f] at the end; the optimum is .2025, and
    straight-through stops where p = .45, at .2475."""
    f = lambda z: jnp.mean((z[:, 0] - c) ** 2)
    estimate = relaxjax.estimator(name)

    def loss(l, key):
        return jnp.mean(jax.vmap(lambda key: estimate(key, f, l))(jax.random.split(key, batch)))

    keys = jax.random.split(jax.random.key(0), steps)
    l = jax.jit(lambda keys: descend(loss, jnp.zeros((bits, 2)), optax.adam(1e-2), keys))(keys)
    p = np.asarray(jax.nn.softmax(l), float)[:, 0]
    return {"E[f]": rounded(np.mean((1 - p) * c**2 + p * (1 - c) ** 2))}


def double_cv(name):
    """200 bits at p = .7, f = mean (b - .499)^2 (Titsias, Shi 2022): the variance of RLOO over that
    of double_cv, its scale learned from 0 by the scalar's own gradient."""
    l = jnp.full(200, jnp.log(0.7 / 0.3))
    f = lambda x: jnp.mean((x - 0.499) ** 2)
    estimate = lambda scale, l, key: relaxjax.estimator(name, scale=scale)(key, f, l)

    def loss(scale, key):
        keys = jax.random.split(key, 16)
        return jnp.mean(jax.vmap(estimate, (None, None, 0))(scale, l, keys))

    keys = jax.random.split(jax.random.key(3), 200)
    scale = jax.jit(lambda keys: descend(loss, jnp.zeros(()), optax.adam(2e-4), keys))(keys)

    @jax.jit
    def variance(scale):
        keys = jax.random.split(jax.random.key(1), 2_000)
        gradients = jax.vmap(jax.grad(estimate, 1), (None, None, 0))(scale, l, keys)
        return jnp.mean(jnp.var(gradients, axis=0))

    # At scale 0 it is RLOO.
    return {"rloo over it": rounded(variance(jnp.zeros(())) / variance(scale))}


METHODS = ("straight_through", "straight_through_gumbel_softmax", "reinmax", "zgr")
PARTS = {
    "relax": jobs(relax, (f"bernoulli/{method}" for method in ("reinforce", "rebar", "relax"))),
    "polynomial": jobs(polynomial, (f"categorical/{method}" for method in METHODS)),
    "double_cv": jobs(double_cv, ["bernoulli/double_cv"]),
}

if __name__ == "__main__":
    measure("toys", PARTS, asked(__doc__))
