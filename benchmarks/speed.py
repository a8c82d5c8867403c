"""What every sampler and estimator costs, as ratios inside one run.

Units: a sampler's own noise; a copy of as many numbers through memory; the same draw by plain
autodiff; the same law in other libraries. A ratio is [median, quartile, quartile] over turns
(`_harness.race`). Parameters are arguments of the jitted functions, since XLA folds constants.
"""

import functools
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import _harness
from _harness import Job, asked, jobs, measure, median, modules, original, race, ratio, timed, warm
from laws import LAWS, ORIGINAL, ROWS, K, ours, peers
from relaxjax.catalog import ESTIMATORS

KEY = jax.random.key(0)
normal = lambda shape, seed: jax.random.normal(jax.random.key(seed), shape)
takes_k = lambda name: "k" in ESTIMATORS[name].hyperparameters
nanoseconds = lambda times, who, entries: float(f"{1e6 * median(times, who) / entries:.3g}")


def arguments(sampler, shape):
    """What forward_backward of the sampler takes at this shape of its parameters."""
    params, temperature = normal(shape, 1), jnp.float32(0.5)
    z = jax.eval_shape(sampler, KEY, params, temperature)
    return KEY, params, temperature, normal(z.shape, 2)


def forward_backward(sampler, temperature_too=False):
    """(key, params, temperature, g) -> z and the cotangents of params, and of temperature too."""

    def run(key, params, temperature, g):
        if temperature_too:
            z, back = jax.vjp(lambda p, t: sampler(key, p, t), params, temperature)
        else:
            z, back = jax.vjp(lambda p: sampler(key, p, temperature), params)
        return z, back(g)

    return run


def importing():
    """Seconds of `import relaxjax` over those of `import jax`, in fresh interpreters by turns."""
    turn = lambda module: timed(
        lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    )
    times = race({module: turn(module) for module in ("jax", "relaxjax")})
    return {"relaxjax over jax": ratio(times, "relaxjax", "jax")}


def laws(name, shape=(65_536, 10)):
    """A pathwise row over its own noise, over a copy, over plain autodiff and over its peers."""
    (plain, noise), own, (others, absent) = LAWS[name], ours(name), peers(name)
    others = ({"plain": plain} if plain else {}) | others
    args = arguments(own, shape)
    contestants = {
        "noise": (lambda key: noise(key, shape), (KEY,)),
        "copy": (jnp.negative, args[-1:]),
        "forward": (own, args[:3]),
    }
    both = ", temperature too"
    for version, sampler in {"ours": own, **others}.items():
        contestants[version] = forward_backward(sampler), args
        contestants[version + both] = forward_backward(sampler, temperature_too=True), args
    times = race(contestants)
    figures = {
        "milliseconds": median(times, "ours"),
        "forward over noise": ratio(times, "forward", "noise"),
        "over noise": ratio(times, "ours", "noise"),
        "over copy": ratio(times, "ours", "copy"),
    }
    for version in others:
        figures[f"over {version}"] = ratio(times, "ours", version)
        figures[f"over {version}{both}"] = ratio(times, "ours" + both, version + both)
    return figures | absent


def growth(name, sizes=(10_000, 100_000, 1_000_000, 10_000_000)):
    """Nanoseconds per entry, forward + backward, at each size, and those of a copy of the numbers
    that a draw holds: each of its noises, or sums, or z where that is more. The growth of each is
    from its cheapest size to the largest."""
    sampler = ours(name)
    # Ten noises per draw, or k sums per row, which at ten million entries say nothing more.
    many = 10 if name.endswith("/gumbel_rao") else K if takes_k(name) else 1
    contestants, entries = {}, {}
    for size in sizes[:-1] if many > 1 else sizes:
        args = arguments(sampler, (size // 10, 10) if name in ROWS else (size,))
        _, params, _, g = args
        noise = jax.eval_shape(functools.partial(LAWS[name][1], shape=params.shape), KEY)
        entries[size] = params.size
        copied = normal((many * max(noise.size, g.size),), 3)
        contestants[size, "ours"] = warm(forward_backward(sampler), *args)
        contestants[size, "copy"] = warm(jnp.negative, copied)
    # All sizes in one race, since the machine drifts from one to the next.
    times = race(contestants, seconds=4)
    pairs = {
        str(size): [nanoseconds(times, (size, who), n) for who in ("ours", "copy")]
        for size, n in entries.items()
    }
    own, copy = zip(*pairs.values(), strict=True)
    grown = (own[-1] / min(own)) / (copy[-1] / min(copy))
    return pairs | {"growth over the copy's": round(grown, 2)}


def classes(name, counts=(2, 4, 16, 64, 512, 4096), entries=655_360):
    """Nanoseconds per entry, forward + backward, by the length of a row."""
    figures, sampler = {}, ours(name)
    for n in counts:
        if n >= K or not takes_k(name):
            args = arguments(sampler, (entries // n, n))
            times = race({"ours": (forward_backward(sampler), args)}, 7, seconds=0.5)
            figures[str(n)] = nanoseconds(times, "ours", entries)
    return figures


def memory(name, sizes=((1_000, 10), (1_000, 100), (10_000, 10), (10_000, 100))):
    """Temporary bytes of forward + backward of one row of n items, over those of n k numbers."""
    figures = {}
    for n, k in sizes:
        sampler = ours(name, k)
        lowered = jax.jit(forward_backward(sampler)).lower(*arguments(sampler, (n,)))
        held = lowered.compile().memory_analysis().temp_size_in_bytes
        figures[f"{k} of {n:,}"] = round(held / (4 * n * k), 2)
    return figures


FEW = {"exact": (10,), "unordered_set": (10,), "indecater": (64, 10)}


def rows(name, shape=(4_096, 10)):
    """A row of the catalog under a sum, compiled, and its time over that of as many random bits."""
    logits = normal(FEW.get(ESTIMATORS[name].method, shape), 1)
    estimate = _harness.row(name)
    step = jax.value_and_grad(lambda l, key: estimate(key, jnp.sum, l))
    start = time.perf_counter()
    compiled = jax.jit(step).lower(logits, KEY).compile()
    seconds = time.perf_counter() - start
    held = compiled.memory_analysis().temp_size_in_bytes
    bits = lambda key: jax.random.bits(key, logits.shape, "uint32")
    times = race({"bits": (bits, (KEY,)), "row": (compiled, (logits, KEY))}, seconds=1)
    kept = jax.tree.leaves(jax.vjp(lambda l: estimate(KEY, jnp.sum, l), logits)[1])
    return {
        "over bits": ratio(times, "row", "bits"),
        "residuals over logits": round(sum(x.nbytes for x in kept) / logits.nbytes, 2),
        "peak bytes over logits": round(held / logits.nbytes, 2),
        "compile seconds": round(seconds, 2),
        "compilations of 100 temperatures": compilations(name),
    }


def compilations(name):
    """Of a hundred values of all hyperparameters that are one number; None where there are none."""
    logits = jnp.zeros((6,) if name == "categorical/unordered_set" else (4, 3))
    estimate = _harness.row(name, classes=3)
    real = [h for h, x in estimate.real.items() if x is not None and np.ndim(x) == 0]
    if not real:
        return None
    step = jax.jit(lambda l, t: estimate.replace(**dict.fromkeys(real, t))(KEY, jnp.sum, l))
    for t in np.linspace(0.1, 2, 100, dtype=np.float32):
        step(logits, t)
    return step._cache_size()


def against_original(name, entries):
    """How many times as fast as the PyTorch original, forward + backward."""
    contestant, versions = original(name, entries)
    if contestant is None:
        return {"absent": versions}
    sampler = ours(name)
    own = forward_backward(sampler), arguments(sampler, (entries,))
    times = race({"ours": own, "original": contestant}, seconds=10)
    return {
        "milliseconds": median(times, "ours"),
        "original, milliseconds": median(times, "original"),
        "times as fast": ratio(times, "original", "ours"),
        "versions": versions,
    }


PARTS = {
    "importing": {"ratio": Job(importing, ["__init__"])},
    "laws": jobs(laws, LAWS),
    "growth": jobs(growth, LAWS),
    # A row of the correlated ones has D^2 numbers by its nature.
    "classes": jobs(classes, (n for n in LAWS if n in ROWS and "correlated" not in n)),
    "memory": jobs(memory, filter(takes_k, LAWS)),
    "rows": jobs(rows, ESTIMATORS),
    "original": {
        f"{name}, {n}": Job(functools.partial(against_original, name, n), modules(name))
        for name in ORIGINAL
        for n in (655_360, 8_388_608)
    },
}

if __name__ == "__main__":
    measure("speed", PARTS, asked(__doc__))
