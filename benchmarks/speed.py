"""What the samplers cost, as ratios inside one run.

Contestants take turns, so that a drift of the machine hits all alike; each is compiled and warmed
up first and blocked on; figures are medians. Parameters are arguments of the jitted functions,
since XLA folds constants.
"""

import argparse
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from _common import write
from relaxjax import _numerics, categorical
from relaxjax.catalog import ESTIMATORS

KEY = jax.random.key(0)


def race(contestants, rounds):
    """Median milliseconds of each contestant, a dict of name to (function, arguments)."""
    compiled = {name: (jax.jit(f), args) for name, (f, args) in contestants.items()}
    times = {name: [] for name in compiled}
    for i in range(rounds + 2):
        for name, (f, args) in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(f(*args))
            if i >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(t)) for name, t in times.items()}


def forward_backward(sampler, wrt):
    """(key, logits, temperature, g) -> z and the cotangents of logits or of both."""

    def run(key, logits, temperature, g):
        if wrt == "logits":
            z, back = jax.vjp(lambda l: sampler(key, l, temperature), logits)
        else:
            z, back = jax.vjp(lambda l, t: sampler(key, l, t), logits, temperature)
        return z, back(g)

    return run


def normal(shape, seed):
    return jax.random.normal(jax.random.key(seed), shape)


def bits(shape):
    return lambda key: jax.random.bits(key, shape, "uint32")


def tfp_gumbel_softmax():
    """The sampler of TensorFlow Probability on JAX, or why there is none."""
    try:
        import tensorflow_probability.substrates.jax.distributions as tfd
    except Exception as error:
        return None, f"{type(error).__name__}: {str(error).splitlines()[0]}"

    def sampler(key, logits, temperature):
        return tfd.RelaxedOneHotCategorical(temperature, logits=logits).sample(seed=key)

    return sampler, None


def gumbel_softmax(rounds):
    ours = lambda key, l, t: categorical.gumbel_softmax(key, l, temperature=t)
    same_draw = lambda key, l, t: jax.nn.softmax((l + _numerics.gumbel(key, l.shape, l.dtype)) / t)
    jaxs_noise = lambda key, l, t: jax.nn.softmax(
        (l + jax.random.gumbel(key, l.shape, l.dtype, mode="high")) / t
    )
    peers = {"ours": ours, "plain autodiff": same_draw, "plain, jax.random.gumbel": jaxs_noise}
    tfp, why = tfp_gumbel_softmax()
    if tfp is None:
        print(f"  TFP: not measured ({why})")
    else:
        peers["TFP"] = tfp
    results = {"tfp_absent": why}
    for shape in ((65_536, 10), (1_048_576, 8)):
        args = KEY, normal(shape, 1), jnp.float32(0.5), normal(shape, 2)
        contestants = {"bits": (bits(shape), (KEY,))}
        for wrt in ("logits", "both"):
            for name, sampler in peers.items():
                contestants[f"{name}, {wrt}"] = forward_backward(sampler, wrt), args
        results["x".join(map(str, shape))] = report(race(contestants, rounds), "bits")
    return results


def hard_draws(rounds, entries=655_360):
    """The rules of straight_through and reinmax over our draw, and over Gumbel arg-max."""

    def gumbel_max(key, l):
        x = l + _numerics.gumbel(key, l.shape, l.dtype)
        return jax.nn.one_hot(jnp.argmax(x, axis=-1), l.shape[-1], dtype=l.dtype)

    rules = {
        "straight_through": categorical._straight_through,
        "reinmax": categorical._reinmax,
    }
    results = {}
    for classes in (2, 3, 4, 6, 8, 10, 16, 17, 64, 1024):
        shape = (entries // classes, classes)
        args = KEY, normal(shape, 1), jnp.float32(1), normal(shape, 2)
        contestants = {}
        for name, rule in rules.items():
            ours = lambda key, l, t, rule=rule: rule(categorical._draw(key, l), l, t)
            peer = lambda key, l, t, rule=rule: rule(gumbel_max(key, l), l, t)
            contestants[f"{name}, one uniform"] = forward_backward(ours, "logits"), args
            contestants[f"{name}, Gumbel-max"] = forward_backward(peer, "logits"), args
        times = race(contestants, rounds)
        results[str(classes)] = speedup = {
            name: round(times[f"{name}, Gumbel-max"] / times[f"{name}, one uniform"], 2)
            for name in rules
        }
        print(f"  C = {classes:5}: " + ", ".join(f"{k} {v:.2f}x" for k, v in speedup.items()))
    return results


def rows(rounds, shape=(65_536, 10)):
    """Every row of the catalog, forward and forward + backward, over as many random bits; the
    compilations of a schedule; the residuals over the sample's size."""
    results = {}
    for name, row in ESTIMATORS.items():
        logits = normal(shape, 1)
        estimate = row.estimate
        grad = jax.value_and_grad(lambda l, key, e=estimate: e(key, jnp.sum, l))
        contestants = {
            "bits": (bits(shape), (KEY,)),
            "forward": (lambda l, key, e=estimate: e(key, jnp.sum, l), (logits, KEY)),
            "forward + backward": (grad, (logits, KEY)),
        }
        times = race(contestants, rounds)
        kept = jax.tree.leaves(jax.vjp(lambda l, e=estimate: e(KEY, jnp.sum, l), logits)[1])
        results[name] = {
            **{k: round(v / times["bits"], 2) for k, v in times.items() if k != "bits"},
            "residual bytes / sample bytes": round(sum(x.nbytes for x in kept) / logits.nbytes, 2),
            "compilations of 100 temperatures": compilations(row),
        }
        print(f"  {name:44} " + ", ".join(f"{k} {v}" for k, v in results[name].items()))
    return results


def compilations(row):
    real = [h for h, value in row.hyperparameters.items() if isinstance(value, float)]
    if not real:
        return None
    step = jax.jit(lambda l, t: row.estimate(KEY, jnp.sum, l, **dict.fromkeys(real, t)))
    for t in np.linspace(0.1, 2, 100, dtype=np.float32):
        step(jnp.zeros((4, 3)), t)
    return step._cache_size()


def imports(rounds):
    """Seconds of `import relaxjax` over those of `import jax`, in fresh interpreters by turns."""
    times = {"jax": [], "relaxjax": []}
    for _ in range(rounds):
        for module, seconds in times.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            seconds.append(time.perf_counter() - start)
    ratio = round(float(np.median(times["relaxjax"]) / np.median(times["jax"])), 3)
    print(f"  import relaxjax / import jax: {ratio}")
    return {"relaxjax / jax": ratio}


def report(times, unit):
    ratios = {name: round(t / times[unit], 2) for name, t in times.items()}
    for name, ratio in ratios.items():
        print(f"  {name:36} {times[name]:9.2f} ms   {ratio:.2f}x {unit}")
    return {"milliseconds": {k: round(v, 3) for k, v in times.items()}, "ratios": ratios}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    parts = {
        "import": imports,
        "gumbel_softmax": gumbel_softmax,
        "hard_draws": hard_draws,
        "rows": rows,
    }
    results = {}
    for name, part in parts.items():
        print(name)
        results[name] = part(args.rounds)
    write("speed", results)


if __name__ == "__main__":
    main()
