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
    texts = {}
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
                points.append((x, y, 1.06 * x, text, COLORS[kind]))
        calls = sorted({x for x, *_ in points})
        axis.set(title=board, ylabel="-ELBO, nats (lower is better)")
        axis.set_xscale("log", base=2)
        axis.set_xlim(0.9, 2.2 * calls[-1])
        axis.set_xticks(calls, calls)
        axis.set_xlabel("calls of f for a gradient")
        axis.grid(alpha=0.3)
        texts[axis] = points
        for kind in ("pathwise", "score"):
            axis.plot([], [], MARKERS[kind], color=COLORS[kind], label=kind)
        axis.legend(loc="upper right")
    _annotate(figure, texts)
    _save(figure, "leaderboard")


def variance(rows):
    """The standard deviation at the cost of one call of f against the bias, or, of unbiased rows,
    above 'none': one row is left of and below another where it is better in both."""
    panels = {"bernoulli": "bits", "categorical": "classes", "subsets": "k-subsets"}
    size = 14, 7 * len(panels)
    figure, axes = plt.subplots(len(panels), 2, figsize=size, layout="constrained")
    texts = {}
    for line, (law, title) in zip(axes, panels.items(), strict=True):
        for axis, problem in zip(line, ("small", "large"), strict=True):
            found = {
                name: row[problem]
                for name, row in rows.items()
                if name.startswith(law) and row[problem] and row[problem]["std"]
            }
            bias = {
                name: max(row["bias"], row["bias resolved to"])
                for name, row in found.items()
                if not ESTIMATORS[name].unbiased
            }
            low, high = min(bias.values()), max(bias.values())
            decades = max(1, math.log10(high / low))
            none, beside = low / 10 ** (0.6 * decades), high * 10 ** (0.1 * decades)
            points = []
            for name, row in found.items():
                x, y = bias.get(name, none), row["std"] * row["evaluations"] ** 0.5
                color = COLORS[ESTIMATORS[name].kind]
                axis.plot(x, y, MARKERS[ESTIMATORS[name].kind], color=color, ms=5)
                right = beside if name in bias else 1.15 * none
                points.append((x, y, right, _method(name), color))
            axis.set(xscale="log", yscale="log", title=f"{title}, {problem} problem")
            axis.set_xlim(none / 10 ** (0.1 * decades), beside * 10 ** (0.7 * decades))
            powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
            ticks = [10.0**power for power in powers] or [low]
            axis.set_xticks([none, *ticks], ["none", *(f"{tick:.2g}" for tick in ticks)])
            axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            axis.set_xlabel("bias (what the draws can resolve, at least) / |gradient|")
            axis.set_ylabel("std x sqrt(calls of f) / |gradient|")
            axis.grid(alpha=0.3)
            texts[axis] = points
    figure.suptitle("left and down is better")
    _annotate(figure, texts)
    _save(figure, "variance")


def _kind(row):
    exact = row["estimator"].endswith("/exact")
    return "exact" if exact else ESTIMATORS[row["estimator"]].kind


def _label(row):
    """The method and what is not seen from its calls of f."""
    parts = [f"t {t}" for h, t in row["hyperparameters"].items() if h == "temperature"]
    if row["network"]:
        parts.append(f"{row['network'][0]} factors" if row["network"][0] else "linear")
    return ", ".join([_method(row["estimator"]), *parts])


def _method(estimator):
    return estimator.split("/")[1].replace("straight_through", "ST")


def _annotate(figure, texts):
    """The points (x, y, x of the text, text, color) of each of the axes: a text is as high as its
    point, or a line below the next, in the nearest places that allow it."""
    figure.draw_without_rendering()  # for the height of the axes
    for axis, points in texts.items():
        line = 13 / axis.get_window_extent().height  # a text has 8 points, at 100 dots an inch
        scale = axis.transScale + axis.transLimits
        for column in {right for _, _, right, *_ in points}:
            own = sorted((p for p in points if p[2] == column), key=lambda p: p[1])
            steps = line * np.arange(len(own))
            heights = [scale.transform((x, y))[1] for x, y, *_ in own]
            places = isotonic_regression(heights - steps) + steps
            for (x, y, _, text, color), place in zip(own, places, strict=True):
                axis.annotate(
                    text,
                    (x, y),
                    scale.inverted().transform((scale.transform((column, y))[0], place)),
                    color=color,
                    fontsize=8,
                    va="center",
                    arrowprops={"arrowstyle": "-", "lw": 0.4, "color": color},
                )


def _save(figure, name):
    figure.savefig(RESULTS / f"{name}.png", dpi=100)
    plt.close(figure)
