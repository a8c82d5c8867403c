"""What every sampler and estimator costs, as ratios inside one run.

Units: a sampler's own noise; a copy of as many numbers through memory; the same draw by plain
autodiff; the same law in other libraries. Figures are medians over turns (`_race`). Parameters are
arguments of the jitted functions, since XLA folds constants. `--parts` runs some parts and keeps
the others' results.
"""

import argparse
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import _peers
import relaxjax
from _common import digest, read, write
from _race import forward_backward, race, ratios
from laws import LAWS, K
from relaxjax import _numerics, categorical
from relaxjax.catalog import ESTIMATORS
from subset_marginals import FORMULATIONS, both

KEY = jax.random.key(0)
ROUNDS = 25


def normal(shape, seed):
    return jax.random.normal(jax.random.key(seed), shape)


def arguments(law, shape):
    """What forward_backward of the law takes at this shape of its parameters."""
    params, temperature = normal(shape, 1), jnp.float32(0.5)
    z = jax.eval_shape(law.ours, KEY, params, temperature)
    return KEY, params, temperature, normal(z.shape, 2)


def show(name, figures):
    print(f"  {name:48} " + ", ".join(f"{k} {v}" for k, v in figures.items()), flush=True)


def importing():
    """Seconds of `import relaxjax` over those of `import jax`, in fresh interpreters by turns."""

    def turn(module):
        def run():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            return time.perf_counter() - start

        return run

    times = race({module: turn(module) for module in ("jax", "relaxjax")}, ROUNDS)
    figures = {"relaxjax over jax": ratios(times, "jax")["relaxjax"]}
    show("import", figures)
    return figures


def laws(shape=(65_536, 10)):
    """Every pathwise row over its own noise, over plain autodiff, over a copy, over its peers."""
    return {name: one_law(name, shape) for name in LAWS}


def one_law(name, shape):
    law = LAWS[name]
    args = arguments(law, shape)
    forward = args[:3]
    contestants = {
        "noise": (law.noise(shape), (KEY,)),
        "copy": (jnp.negative, args[-1:]),
        "forward": (law.ours, forward),
    }
    peers, absent = _peers.of(name)
    versions = {"ours": law.ours, **({"plain": law.plain} if law.plain else {}), **peers}
    for wrt in ("params", "both"):
        for version, sampler in versions.items():
            contestants[f"{version}, {wrt}"] = forward_backward(sampler, wrt), args
    times = race(contestants, ROUNDS)
    over = lambda a, b: round(times[a][0] / times[b][0], 2)
    figures = {"milliseconds": round(times["ours, params"][0], 2)}
    figures["forward over noise"] = over("forward", "noise")
    figures["over noise"] = over("ours, params", "noise")
    figures["over copy"] = over("ours, params", "copy")
    for version in list(versions)[1:]:
        figures[f"over {version}"] = over("ours, params", f"{version}, params")
        figures[f"over {version}, temperature too"] = over("ours, both", f"{version}, both")
    show(name, figures)
    return figures | absent


def growth(sizes=(10_000, 100_000, 1_000_000, 10_000_000)):
    """Nanoseconds an entry, forward + backward, at each size, and those of a copy."""
    results = {}
    for name, law in LAWS.items():
        last = 10 if law.event else 1
        shapes = {size: (size // last, last) if law.event else (size,) for size in sizes}
        # Ten noises a draw, or k sums a row, at ten million entries say nothing more.
        if name.split("/")[-1] == "gumbel_rao" or name.split("/")[0] in ("subsets", "top_k"):
            del shapes[sizes[-1]]
        figures = {}
        for size, shape in shapes.items():
            args = arguments(law, shape)
            contestants = {
                "ours": (forward_backward(law.ours, "params"), args),
                "copy": (jnp.negative, args[-1:]),
            }
            times = race(contestants, ROUNDS, seconds=1)
            entries = args[1].size
            figures[str(size)] = [round(1e6 * times[c][0] / entries, 2) for c in contestants]
        show(name, figures)
        results[name] = figures
    return results


def classes(counts=(2, 4, 16, 64, 512, 4096), entries=655_360):
    """Nanoseconds an entry, forward + backward, by the length of a row."""
    results = {}
    for name, law in LAWS.items():
        if not law.event or "correlated" in name:  # that one is D^2 an event by its nature
            continue
        figures = {}
        for n in counts:
            if n < K and name.split("/")[0] in ("top_k", "subsets"):
                continue
            args = arguments(law, (entries // n, n))
            times = race({"ours": (forward_backward(law.ours, "params"), args)}, 7, seconds=0.5)
            figures[str(n)] = round(1e6 * times["ours"][0] / entries, 2)
        show(name, figures)
        results[name] = figures
    return results


# f sees the support of one variable, and every neighbor of a sample.
FEW = {"exact": (10,), "unordered_set": (10,), "indecater": (64, 10)}


def rows(shape=(4_096, 10)):
    """Every row of the catalog, compiled: seconds to compile, bytes, residuals, and its time over
    as many random bits. f is a sum."""
    results = {}
    for name in ESTIMATORS:
        logits = normal(FEW.get(name.split("/")[1], shape), 1)
        estimate = relaxjax.estimator(name)
        step = jax.value_and_grad(lambda l, key, e=estimate: e(key, jnp.sum, l))
        start = time.perf_counter()
        compiled = jax.jit(step).lower(logits, KEY).compile()
        seconds = time.perf_counter() - start
        memory = compiled.memory_analysis()
        bits = lambda key, shape=logits.shape: jax.random.bits(key, shape, "uint32")
        times = race({"bits": (bits, (KEY,)), "row": (compiled, (logits, KEY))}, ROUNDS, 1)
        kept = jax.tree.leaves(jax.vjp(lambda l, e=estimate: e(KEY, jnp.sum, l), logits)[1])
        results[name] = {
            "over bits": round(times["row"][0] / times["bits"][0], 2),
            "residuals over logits": round(sum(x.nbytes for x in kept) / logits.nbytes, 2),
            "peak bytes over logits": round(memory.temp_size_in_bytes / logits.nbytes, 2),
            "compile seconds": round(seconds, 2),
            "compilations of 100 temperatures": compilations(name),
        }
        show(name, results[name])
    return results


def compilations(name):
    row = ESTIMATORS[name]
    real = [h for h, value in row.hyperparameters.items() if isinstance(value, float)]
    if not real:
        return None
    shape = (6,) if name == "categorical/unordered_set" else (4, 3)
    step = jax.jit(lambda l, t: relaxjax.estimator(name, **dict.fromkeys(real, t))(KEY, jnp.sum, l))
    for t in np.linspace(0.1, 2, 100, dtype=np.float32):
        step(jnp.zeros(shape), t)
    return step._cache_size()


def hard_draws(entries=655_360):
    """The rules of straight_through and reinmax over our draw, and over Gumbel arg-max."""

    def gumbel_max(key, l):
        x = l + _numerics.gumbel(key, l.shape, l.dtype)
        return jax.nn.one_hot(jnp.argmax(x, axis=-1), l.shape[-1], dtype=l.dtype)

    rules = {
        "straight_through": categorical._straight_through,
        "reinmax": categorical._reinmax,
    }
    results = {}
    for n in (2, 3, 4, 6, 8, 10, 16, 17, 64, 1024):
        shape = (entries // n, n)
        args = KEY, normal(shape, 1), jnp.float32(1), normal(shape, 2)
        contestants = {}
        for name, rule in rules.items():
            ours = lambda key, l, t, rule=rule: rule(categorical._draw(key, l), l, t)
            peer = lambda key, l, t, rule=rule: rule(gumbel_max(key, l), l, t)
            contestants[f"{name}, one uniform"] = forward_backward(ours, "params"), args
            contestants[f"{name}, Gumbel-max"] = forward_backward(peer, "params"), args
        times = race(contestants, ROUNDS, seconds=2)
        results[str(n)] = {
            name: round(times[f"{name}, Gumbel-max"][0] / times[f"{name}, one uniform"][0], 2)
            for name in rules
        }
        show(f"C = {n}", results[str(n)])
    return results


def subset_marginals(n=1_000, k=50):
    """The inclusion marginals and their gradient, in every formulation tried."""
    results = {}
    for rows in (1, 64):
        # The associative scan keeps n k^2 numbers a row, and is out of the race at one.
        names = [name for name in FORMULATIONS if rows == 1 or "associative" not in name]
        args = normal((rows, n), 1), normal((rows, n), 2)
        contestants = {name: (jax.vmap(both(FORMULATIONS[name], k)), args) for name in names}
        times = race(contestants, ROUNDS, seconds=15)
        best = min(t[0] for t in times.values())
        figures = {name: round(t[0] / best, 2) for name, t in times.items()}
        show(f"{rows} rows, over the best", figures)
        results[str(rows)] = figures
    return results


def original():
    """How many times as fast as the PyTorch original, forward + backward, at one shape."""
    torch, why = _peers.torch()
    if torch is None:
        print(f"  not measured: {why}")
        return {"absent": why}
    results = {"versions": why}
    for name in _peers.ORIGINAL:
        for entries in (655_360, 8_388_608):
            law = LAWS[name]
            args = arguments(law, (entries,))
            contestants = {
                "ours": (forward_backward(law.ours, "params"), args),
                "original": torch(name, entries),
            }
            times = race(contestants, ROUNDS, seconds=10)
            key = f"{name}, {entries}"
            results[key] = {
                "milliseconds": round(times["ours"][0], 2),
                "original, milliseconds": round(times["original"][0], 2),
                "times as fast": round(times["original"][0] / times["ours"][0], 2),
            }
            show(key, results[key])
    return results


EVERY_LAW = sorted({name.split("/")[0] for name in LAWS} | {"_numerics"})
SCORES = ["_surrogate", "control_variates", "families", "score"]
# Each part, and the modules whose code it measures.
PARTS = {
    "importing": (importing, [*EVERY_LAW, *SCORES, "audit", "catalog", "__init__"]),
    "laws": (laws, EVERY_LAW),
    "growth": (growth, EVERY_LAW),
    "classes": (classes, EVERY_LAW),
    "rows": (rows, [*EVERY_LAW, *SCORES]),
    "hard_draws": (hard_draws, ["_numerics", "categorical"]),
    "subset_marginals": (subset_marginals, ["_numerics", "subsets"]),
    "original": (original, ["_numerics", "bernoulli", "gates"]),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    results = read("speed")
    for name in args.parts:
        print(name)
        part, measured = PARTS[name]
        code = {"modules": measured, "code": digest(measured)}
        results[name] = code | {"results": part()}
        write("speed", {part: results[part] for part in PARTS if part in results})


if __name__ == "__main__":
    main()
