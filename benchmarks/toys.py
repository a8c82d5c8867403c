"""The published toy problems, whose answers are known.

relax: one bit, f = (b - .499)^2 from p = 1/2 (Grathwohl et al. 2018): p after 10,000 steps of Adam
  .01, the median of six seeds; it should go to 0, and f's two values differ by .002.
polynomial: 128 bits, f = mean (b - .45)^2 (Liu et al. 2023): E[f] at the end; the optimum is .2025,
  and straight-through stops where p = .45, at .2475.
double_cv: 200 bits at p = .7, f = mean (b - .499)^2 (Titsias, Shi 2022): the variance of RLOO over
  that of double_cv, its scale learned from 0 by the scalar's own gradient.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from _common import digest, write
from relaxjax import bernoulli, categorical, control_variates, score

BITS = {"family": bernoulli.family}
MODULES = ["control_variates", "score"]


def train(loss, params, learning_rate, keys):
    """The parameters after one step of Adam a key."""
    adam = optax.adam(learning_rate)

    def step(carry, key):
        params, state = carry
        updates, state = adam.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, adam.init(params)), keys)[0][0]


def relax():
    f = lambda b: (b - 0.499) ** 2
    critic = lambda c, z: c["out"] @ jnp.tanh(c["in"] * z + c["bias"])

    def losses(p, key):
        temperature = jnp.exp(p["log_temperature"])
        return {
            "reinforce": lambda: score.reinforce(key, f, p["l"], **BITS),
            "rebar": lambda: control_variates.rebar(
                key, f, p["l"], **BITS, temperature=temperature, scale=p["scale"]
            ),
            "relax": lambda: control_variates.relax(
                key,
                f,
                p["l"],
                **BITS,
                critic=critic,
                critic_params=p["critic"],
                temperature=temperature,
            ),
        }

    def end(name, seed):
        start, rest = jax.random.split(jax.random.key(seed))
        keys = jax.random.split(start, 3)
        normal = {
            n: jax.random.normal(k, (10,)) for n, k in zip(("in", "bias", "out"), keys, strict=True)
        }
        params = {
            "l": jnp.zeros(()),
            "log_temperature": jnp.log(0.5),
            "scale": jnp.ones(()),
            "critic": {**normal, "out": normal["out"] / 10},
        }
        loss = lambda p, key: losses(p, key)[name]()
        return jax.nn.sigmoid(train(loss, params, 0.01, jax.random.split(rest, 10_000))["l"])

    return {
        name: float(jnp.median(jax.jit(jax.vmap(functools.partial(end, name)))(jnp.arange(6))))
        for name in ("reinforce", "rebar", "relax")
    }


def polynomial(bits=128, c=0.45, batch=64, steps=4_000):
    f = lambda z: jnp.mean((z[:, 0] - c) ** 2)
    results = {}
    for name in ("straight_through", "straight_through_gumbel_softmax", "reinmax", "zgr"):
        sampler = getattr(categorical, name)

        def loss(l, key, sampler=sampler):
            return jnp.mean(jax.vmap(lambda key: f(sampler(key, l)))(jax.random.split(key, batch)))

        keys = jax.random.split(jax.random.key(0), steps)
        l = jax.jit(lambda keys, loss=loss: train(loss, jnp.zeros((bits, 2)), 1e-2, keys))(keys)
        p = np.asarray(jax.nn.softmax(l), float)[:, 0]
        results[name] = float(np.mean((1 - p) * c**2 + p * (1 - c) ** 2))
    return results


def double_cv():
    l = jnp.full(200, jnp.log(0.7 / 0.3))
    f = lambda x: jnp.mean((x - 0.499) ** 2)
    estimate = lambda scale, l, key: score.double_cv(key, f, l, **BITS, scale=scale)

    def loss(scale, key):
        keys = jax.random.split(key, 16)
        return jnp.mean(jax.vmap(estimate, (None, None, 0))(scale, l, keys))

    keys = jax.random.split(jax.random.key(3), 200)
    scale = jax.jit(lambda keys: train(loss, jnp.zeros(()), 2e-4, keys))(keys)

    @jax.jit
    def variance(scale):
        keys = jax.random.split(jax.random.key(1), 2_000)
        gradients = jax.vmap(jax.grad(estimate, 1), (None, None, 0))(scale, l, keys)
        return jnp.mean(jnp.var(gradients, axis=0))

    return {"rloo over double_cv": float(variance(jnp.zeros(())) / variance(scale))}


def main():
    results = {"modules": MODULES, "code": digest(MODULES)}
    for toy in (relax, polynomial, double_cv):
        found = {name: float(f"{x:.4g}") for name, x in toy().items()}
        print(f"{toy.__name__:12} {found}", flush=True)
        results[toy.__name__] = found
    write("toys", results)


if __name__ == "__main__":
    main()
