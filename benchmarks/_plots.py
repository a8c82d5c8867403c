"""The pictures of docs/benchmarks.md, which render.py draws from the results."""

import math
import pathlib

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from sklearn.isotonic import isotonic_regression

from relaxjax.catalog import ESTIMATORS

matplotlib.use("Agg")

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
COLORS = {"pathwise": "tab:blue", "score": "tab:red", "exact": "black"}
MARKERS = {"pathwise": "o", "score": "s", "exact": "D"}


def speed(laws):
    """A dot for the median and a bar between the quartiles of each row, over each unit."""
    units = {"over noise": "its own noise", "over plain": "plain autodiff"}
    names = sorted(laws, key=lambda name: laws[name]["over noise"], reverse=True)
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 7), sharey=True, layout="constrained")
    for axis, (unit, title) in zip(axes, units.items(), strict=True):
        for i, name in enumerate(names):
            if unit in laws[name]:
                median, low, high = laws[name][unit]
                axis.plot([low, high], [i, i], color=COLORS["pathwise"], lw=4, alpha=0.4)
                axis.plot(median, i, "o", color=COLORS["pathwise"], ms=4)
        axis.axvline(1, color="black", lw=0.8)
        axis.set(xscale="log", title=f"over {title}")
        axis.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axis.tick_params(axis="x", labelsize=8)
        axis.margins(y=0.02)
        axis.grid(alpha=0.3)
    axes[0].set_yticks(range(len(names)), names)
    figure.suptitle("time of forward + backward: median and quartiles, left is faster")
    _save(figure, "speed")


def leaderboard(rows):
    """-ELBO against calls of f, a panel a board; a row that sums over all samples is a line."""
    boards = list(dict.fromkeys(row["board"] for row in rows))
    size = 12, 9 * len(boards)
    figure, axes = plt.subplots(len(boards), 1, figsize=size, squeeze=False, layout="constrained")
    for axis, board in zip(axes[:, 0], boards, strict=True):
        found = [r for r in rows if r["board"] == board and math.isfinite(r["negative_elbo"])]
        # A row far above the others, at the upper edge, would press them together.
        top = 1.25 * np.median([row["negative_elbo"] for row in found])
        points = []
        for row in found:
            kind, x, y = _kind(row), row["evaluations"], min(row["negative_elbo"], top)
            text = _label(row) + (f", {row['negative_elbo']:.1f}" if y == top else "")
            if kind == "exact":
                axis.axhline(y, color=COLORS[kind], ls="--", lw=1)
                right = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "bottom"}
                axis.text(0.99, y, f"{text}, {x:,} calls", fontsize=8, **right)
            else:
                style = {"color": COLORS[kind], "marker": MARKERS[kind], "ms": 5, "capsize": 2}
                axis.errorbar(x, y, None if y == top else row["standard_error"], **style)
                points.append((x, y, text, COLORS[kind]))
        calls = sorted({x for x, *_ in points})
        axis.set(title=board, ylabel="-ELBO, nats (lower is better)")
        axis.set_xscale("log", base=2)
        axis.set_xlim(0.9, 2.2 * calls[-1])
        axis.set_xticks(calls, calls)
        axis.set_xlabel("calls of f for a gradient")
        axis.grid(alpha=0.3)
        _annotate(axis, points)
        for kind in ("pathwise", "score"):
            axis.plot([], [], MARKERS[kind], color=COLORS[kind], label=kind)
        axis.legend(loc="upper right")
    _save(figure, "leaderboard")


def _kind(row):
    exact = row["estimator"].endswith("/exact")
    return "exact" if exact else ESTIMATORS[row["estimator"]].kind


def _label(row):
    """The method and what is not seen from its calls of f; ST for straight_through."""
    method = row["estimator"].split("/")[1].replace("straight_through", "ST")
    parts = [f"t {t}" for h, t in row["hyperparameters"].items() if h == "temperature"]
    if row["network"]:
        parts.append(f"{row['network'][0]} factors" if row["network"][0] else "linear")
    return ", ".join([method, *parts])


def _annotate(axis, points):
    """Each text right of its point, a line below the next: the nearest places that allow it."""
    low, high = axis.get_ylim()
    line = (high - low) / 62
    for x in {x for x, *_ in points}:
        column = sorted((p for p in points if p[0] == x), key=lambda p: p[1])
        steps = line * np.arange(len(column))
        places = isotonic_regression([y for _, y, *_ in column] - steps) + steps
        for (_, y, text, color), place in zip(column, places, strict=True):
            axis.annotate(
                text,
                (x, y),
                (1.06 * x, place),
                color=color,
                fontsize=8,
                va="center",
                arrowprops={"arrowstyle": "-", "lw": 0.4, "color": color},
            )


def _save(figure, name):
    figure.savefig(RESULTS / f"{name}.png", dpi=100)
    plt.close(figure)
