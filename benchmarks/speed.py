"""What every sampler and estimator costs, as ratios inside one run.

Units: a sampler's own noise; a copy of as many numbers through memory; the same draw by plain
autodiff; the same law in other libraries. A ratio is [median, quartile, quartile] over turns
(`_race`). Parameters are arguments of the jitted functions, since XLA folds constants. `--parts`
runs some parts and keeps the others' results; a run that is stopped goes on where it was.
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
from _common import digest, modules, read, write
from _race import forward_backward, median, race, ratio, warm
from laws import LAWS, K
from relaxjax import _numerics, categorical, subsets, top_k
from relaxjax.catalog import ESTIMATORS
from subset_marginals import FORMULATIONS, both

KEY = jax.random.key(0)
ROUNDS = 25
# Bytes a second that the memory moves at most, by jax's name of the device.
BANDWIDTH = {
    "NVIDIA A100-SXM4-80GB": 2.04e12,
    "NVIDIA H100 80GB HBM3": 3.35e12,
    "NVIDIA H200": 4.8e12,
    "TPU v4": 1.23e12,
    "TPU v5 lite": 0.82e12,
    "TPU v5": 2.77e12,
    "TPU v6 lite": 1.64e12,
}


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
    figures = {"relaxjax over jax": ratio(times, "relaxjax", "jax")}
    show("import", figures)
    return figures


def laws(name, shape=(65_536, 10)):
    """A pathwise row over its own noise, over a copy, over plain autodiff and over its peers."""
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
    figures = {"milliseconds": median(times, "ours, params")}
    figures["forward over noise"] = ratio(times, "forward", "noise")
    figures["over noise"] = ratio(times, "ours, params", "noise")
    figures["over copy"] = ratio(times, "ours, params", "copy")
    for version in list(versions)[1:]:
        figures[f"over {version}"] = ratio(times, "ours, params", f"{version}, params")
        figures[f"over {version}, temperature too"] = ratio(times, "ours, both", f"{version}, both")
    show(name, figures)
    return figures | absent


def growth(name, sizes=(10_000, 100_000, 1_000_000, 10_000_000)):
    """Nanoseconds an entry, forward + backward, at each size, and those of a copy of the numbers
    that a draw holds: each of its noises, or sums, or z where that is more. The growth of each is
    from its cheapest size to the largest."""
    law, last = LAWS[name], 10 if LAWS[name].event else 1
    # Ten noises a draw, or k sums a row, which at ten million entries say nothing more.
    many = 10 if name.endswith("/gumbel_rao") else 1
    many = K if name.startswith(("subsets/", "top_k/")) else many
    sizes = sizes[:-1] if many > 1 else sizes
    contestants, entries = {}, {}
    for size in sizes:
        args = arguments(law, (size // last, last) if law.event else (size,))
        _, params, _, g = args
        noise = jax.eval_shape(law.noise(params.shape), KEY)
        entries[size] = params.size
        copied = normal((many * max(noise.size, g.size),), 3)
        contestants[size, "ours"] = warm(forward_backward(law.ours, "params"), *args)
        contestants[size, "copy"] = warm(jnp.negative, copied)
    # All sizes in one race, since the machine drifts from one to the next.
    times = race(contestants, ROUNDS, seconds=4)
    pairs = {
        str(size): [nanoseconds(times, (size, who), n) for who in ("ours", "copy")]
        for size, n in entries.items()
    }
    ours, copy = zip(*pairs.values(), strict=True)
    grown = (ours[-1] / min(ours)) / (copy[-1] / min(copy))
    figures = pairs | {"growth over the copy's": round(grown, 2)}
    peak = BANDWIDTH.get(jax.devices()[0].device_kind)
    if peak:  # params and g are read, z and the cotangent written
        took = 1e-9 * ours[-1] * params.size
        moved = 2 * (params.nbytes + g.nbytes)
        figures["share of bandwidth"] = float(f"{moved / took / peak:.2g}")
    show(name, figures)
    return figures


def nanoseconds(times, contestant, entries):
    return float(f"{1e6 * median(times, contestant) / entries:.3g}")


def classes(name, counts=(2, 4, 16, 64, 512, 4096), entries=655_360):
    """Nanoseconds an entry, forward + backward, by the length of a row."""
    figures = {}
    for n in counts:
        if n < K and name.startswith(("top_k/", "subsets/")):
            continue
        args = arguments(LAWS[name], (entries // n, n))
        contestants = {"ours": (forward_backward(LAWS[name].ours, "params"), args)}
        figures[str(n)] = nanoseconds(race(contestants, 7, seconds=0.5), "ours", entries)
    show(name, figures)
    return figures


def memory(name, sizes=((1_000, 10), (1_000, 100), (10_000, 10), (10_000, 100))):
    """Temporary bytes of forward + backward of one row of n items, over those of n k numbers."""
    sampler = {"top_k": top_k, "subsets": subsets}[name.split("/")[0]]
    figures = {}
    for n, k in sizes:
        law = LAWS[name]._replace(
            ours=lambda key, l, t, k=k: getattr(sampler, name.split("/")[1])(key, l, k)
        )
        compiled = jax.jit(forward_backward(law.ours, "params")).lower(*arguments(law, (n,)))
        held = compiled.compile().memory_analysis().temp_size_in_bytes
        figures[f"{k} of {n:,}"] = round(held / (4 * n * k), 2)
    show(name, figures)
    return figures


# f sees the support of one variable, and every neighbor of a sample.
FEW = {"exact": (10,), "unordered_set": (10,), "indecater": (64, 10)}


def rows(name, shape=(4_096, 10)):
    """A row of the catalog, compiled: seconds to compile, bytes, residuals, and its time over as
    many random bits. f is a sum."""
    logits = normal(FEW.get(name.split("/")[1], shape), 1)
    estimate = relaxjax.estimator(name)
    step = jax.value_and_grad(lambda l, key: estimate(key, jnp.sum, l))
    start = time.perf_counter()
    compiled = jax.jit(step).lower(logits, KEY).compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    bits = lambda key: jax.random.bits(key, logits.shape, "uint32")
    times = race({"bits": (bits, (KEY,)), "row": (compiled, (logits, KEY))}, ROUNDS, 1)
    kept = jax.tree.leaves(jax.vjp(lambda l: estimate(KEY, jnp.sum, l), logits)[1])
    figures = {
        "over bits": ratio(times, "row", "bits"),
        "residuals over logits": round(sum(x.nbytes for x in kept) / logits.nbytes, 2),
        "peak bytes over logits": round(memory.temp_size_in_bytes / logits.nbytes, 2),
        "compile seconds": round(seconds, 2),
        "compilations of 100 temperatures": compilations(name),
    }
    show(name, figures)
    return figures


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
            name: ratio(times, f"{name}, Gumbel-max", f"{name}, one uniform") for name in rules
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
        best = min(times, key=lambda name: median(times, name))
        figures = {name: ratio(times, name, best) for name in times}
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
                "milliseconds": median(times, "ours"),
                "original, milliseconds": median(times, "original"),
                "times as fast": ratio(times, "original", "ours"),
            }
            show(key, results[key])
    return results


def of_rows(names):
    return {name: modules(name) for name in names}


# Each part, and for each of its rows, or for all of it, the modules whose code it measures.
PARTS = {
    "importing": (lambda _: importing(), {"all": ["__init__"]}),
    "laws": (laws, of_rows(LAWS)),
    "growth": (growth, of_rows(LAWS)),
    "classes": (
        classes,
        # A row of the correlated ones has D^2 numbers by its nature.
        of_rows(n for n, law in LAWS.items() if law.event and "correlated" not in n),
    ),
    "memory": (memory, of_rows(n for n in LAWS if n.startswith(("subsets/", "top_k/")))),
    "rows": (rows, of_rows(ESTIMATORS)),
    "hard_draws": (lambda _: hard_draws(), {"all": ["categorical"]}),
    "subset_marginals": (lambda _: subset_marginals(), {"all": ["subsets"]}),
    "original": (lambda _: original(), {"all": ["bernoulli", "gates"]}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--force", action="store_true", help="run again what has a result")
    args = parser.parse_args()
    results = read("speed")
    for part in args.parts:
        print(part)
        measure, of = PARTS[part]
        done = results.setdefault(part, {})
        for row, names in of.items():
            asked = {"rounds": ROUNDS, "code": digest(names)}
            if args.force or not asked.items() <= done.get(row, {}).items():
                done[row] = asked | {"results": measure(row)}
                write("speed", in_order(results))


def in_order(results):
    """As the tables have it, without the rows that they no longer have."""
    return {
        part: {row: results[part][row] for row in of if row in results[part]}
        for part, (_, of) in PARTS.items()
        if part in results
    }


if __name__ == "__main__":
    main()
