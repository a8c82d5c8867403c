"""Races: contestants take turns, so that a drift of the machine hits all alike."""

import time

import jax
import numpy as np


def race(contestants, rounds=25, seconds=20.0):
    """Milliseconds of each contestant, an array with one for every turn of at most `rounds`.

    Args:
      contestants: name -> (function, arguments), jitted if it is not compiled, warmed up and
        blocked on here; or name -> a function without arguments that runs once and returns its
        own seconds.
      seconds: after which no further round starts; three rounds are run in any case.
    """
    turns = {name: _turn(contestant) for name, contestant in contestants.items()}
    times = {name: [] for name in turns}
    for turn in turns.values():
        turn()
    start = time.perf_counter()
    for i in range(rounds + 1):
        for name, turn in turns.items():
            elapsed = 1e3 * turn()
            if i:  # the first round fills caches
                times[name].append(elapsed)
        if i >= 3 and time.perf_counter() - start > seconds:
            break
    return {name: np.array(t) for name, t in times.items()}


def _turn(contestant):
    if callable(contestant):
        return contestant
    f, args = contestant
    compiled = f if isinstance(f, jax.stages.Compiled) else jax.jit(f)

    def turn():
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        return time.perf_counter() - start

    return turn


def warm(f, *args):
    """A contestant whose arguments a call before brings back into the caches, from another's."""
    turn = _turn((f, args))

    def second():
        turn()
        return turn()

    return second


def ratio(times, a, b):
    """Median and quartiles of a's time over b's, each of one turn: neighbors, so drift cancels."""
    return [float(f"{q:.3g}") for q in np.percentile(times[a] / times[b], (50, 25, 75))]


def median(times, name):
    return float(f"{np.median(times[name]):.3g}")


def forward_backward(sampler, wrt):
    """(key, params, temperature, g) -> z and the cotangents of params ("params") or of both."""

    def run(key, params, temperature, g):
        if wrt == "params":
            z, back = jax.vjp(lambda p: sampler(key, p, temperature), params)
        else:
            z, back = jax.vjp(lambda p, t: sampler(key, p, t), params, temperature)
        return z, back(g)

    return run
