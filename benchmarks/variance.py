"""Bias, variance and cost of every estimator's gradient, on one small and one large problem a law.

f is a random network with a quadratic term; logits are standard normal. Small problems have an
exact reference by enumeration where the law is finite; large ones, and laws of continuous samples,
that of RLOO under the same law. Rows of relaxed samples are judged against the discrete law that
they stand for.
"""

import argparse
import math
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from _common import digest, modules, read, write
from relaxjax import audit, score
from relaxjax.catalog import ESTIMATORS

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "examples"))
from vae import latent  # noqa: E402  (the example knows every law's family)

KEY = jax.random.key(0)
# As the example's --latent; large problems where a law is among the large ones.
SMALL = {"categorical": "4x3", "subsets": "5choose2", "top_k": "5choose2", "simplex": "4x3"}
LARGE = {"bernoulli": "200", "categorical": "8x50", "subsets": "50choose10"}
TEMPERATURES = np.geomspace(0.1, 2, 8)
NUM_SAMPLES = 2, 4, 8


def problem(name, size):
    """f, logits, the family and the static hyperparameters of a row; None where it has no such."""
    law = latent.law_of(name)
    if size == "large":
        text = LARGE.get(law)
        if text is None or name.split("/")[1] in ("unordered_set", "exact"):
            return None
    else:
        text = SMALL.get(law.split("/")[0], "4x3" if law.endswith("softmax") else "5")
        text = "6x1" if name == "categorical/unordered_set" else text
    parsed = latent.parse(text, law)
    defaults = dict(ESTIMATORS[name].hyperparameters)
    static = {"k": parsed.k} if parsed.k else {}
    if "truncation" in defaults:
        static["truncation"] = 8
    family = latent.build(parsed, defaults | static).family
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=parsed.shape), jnp.float32)
    return network(rng, math.prod(parsed.event)), logits, family, static


def network(rng, n):
    w, v = rng.normal(size=(16, n)) / math.sqrt(n), rng.normal(size=16)
    a = rng.normal(size=n) / math.sqrt(n)
    w, v, a = (jnp.asarray(x, jnp.float32) for x in (w, v, a))

    def f(z):
        z = z.reshape(-1)
        return v @ jnp.tanh(w @ z) + (a @ z - 0.5) ** 2

    return f


def measure(name, size, num_draws):
    found = problem(name, size)
    if found is None:
        return None
    f, logits, family, static = found
    estimate = lambda key, f, l: ESTIMATORS[name].estimate(
        key, f, l, **{**ESTIMATORS[name].hyperparameters, **static}
    )
    exact = size == "small" and family.support is not None
    result = audit.measure(
        estimate,
        f,
        logits,
        family=family,
        key=KEY,
        num_draws=num_draws,
        reference="exact" if exact else "monte_carlo",
    )
    return summary(result.bias, result.standard_error, result.std, result.reference_gradient) | {
        "evaluations": result.evaluations,
        "reference": "exact" if exact else "RLOO",
    }


def summary(bias, standard_error, std, reference):
    """Norms over the coordinates, as shares of the reference gradient's."""
    norm = float(np.linalg.norm(reference))
    error = float(np.sum(np.square(standard_error)))
    bias = math.sqrt(max(0.0, float(np.sum(np.square(bias))) - error))
    return {
        "bias": round(bias / norm, 4),
        "bias resolved to": round(math.sqrt(error) / norm, 4),
        "std": round(float(np.linalg.norm(std) / norm), 4),
    }


def temperatures(name, num_draws):
    """Bias and std at each temperature, all in one program."""
    f, logits, family, static = problem(name, "small")
    row = ESTIMATORS[name]
    fixed = {**row.hyperparameters, **static}

    def gradient(temperature, key):
        loss = lambda l: row.estimate(key, f, l, **{**fixed, "temperature": temperature})
        return jax.grad(loss)(logits)

    def moments(temperature):
        draws = jax.vmap(gradient, (None, 0))(temperature, jax.random.split(KEY, num_draws))
        return jnp.mean(draws, 0), jnp.std(draws, 0)

    mean, std = jax.jit(jax.vmap(moments))(jnp.asarray(TEMPERATURES, jnp.float32))
    exact = jax.grad(lambda l: score.exact(f, l, family=family))(logits)
    return {
        f"{t:.2f}": summary(m - exact, s / math.sqrt(num_draws), s, exact)
        for t, m, s in zip(TEMPERATURES, np.asarray(mean), np.asarray(std), strict=True)
    }


def samples(name, num_draws):
    """Std at each number of samples, a static one: a program each."""
    results = {}
    for num_samples in NUM_SAMPLES:
        f, logits, family, static = problem(name, "small")
        estimate = lambda key, f, l, n=num_samples, static=static: ESTIMATORS[name].estimate(
            key, f, l, **{**ESTIMATORS[name].hyperparameters, **static, "num_samples": n}
        )
        try:
            result = audit.measure(estimate, f, logits, family=family, key=KEY, num_draws=num_draws)
        except ValueError:
            continue  # not a number of samples that the row takes
        results[str(num_samples)] = summary(
            result.bias, result.standard_error, result.std, result.reference_gradient
        ) | {"evaluations": result.evaluations}
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--force", action="store_true", help="run again what has a result")
    args = parser.parse_args()
    done = {} if args.force else read("variance").get("rows", {})
    results = {}
    for name, row in ESTIMATORS.items():
        asked = {"draws": args.draws, "code": digest([*modules(name), "audit"])}
        old = done.get(name, {})
        if not asked.items() <= old.items():
            old = asked | {size: measure(name, size, args.draws) for size in ("small", "large")}
            if "temperature" in row.hyperparameters and row.family is not None:
                old["temperatures"] = temperatures(name, args.draws)
            if "num_samples" in row.hyperparameters and row.family is not None:
                old["num_samples"] = samples(name, args.draws)
        results[name] = old
        write("variance", {"rows": {**done, **results}})
        print(f"{name:44} {old['small']} {old['large'] or ''}", flush=True)


if __name__ == "__main__":
    main()
