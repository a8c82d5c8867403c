"""The pictures of docs/benchmarks.md, which render.py draws from the results."""

import math

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from sklearn.isotonic import isotonic_regression

from _harness import RESULTS, results
from relaxjax.catalog import ESTIMATORS

matplotlib.use("Agg")

# A row that the catalog no longer has is gray.
COLORS = {"pathwise": "tab:blue", "score": "tab:red", "gone": "tab:gray"}
MARKERS = {"pathwise": "o", "score": "s", "gone": "x"}
PANELS = {"bits": ("bernoulli", "correlated"), "classes": "categorical", "k-subsets": "subsets"}


def speed(found):
    """The median and quartiles of each row, over each unit."""
    laws = results(found["laws"])
    names = sorted(laws, key=lambda name: laws[name]["over noise"], reverse=True)
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 7), sharey=True, layout="constrained")
    for axis, unit in zip(axes, ("over noise", "over plain"), strict=True):
        rows = [laws[name].get(unit, [math.nan] * 3) for name in names]
        median, low, high = np.array(rows).T
        axis.errorbar(median, names, xerr=[median - low, high - median], fmt="o", ms=4)
        axis.axvline(1, color="black", lw=0.8)
        axis.set(xscale="log", xlabel=unit.replace("plain", "plain autodiff"))
        axis.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axis.grid(alpha=0.3)
    figure.suptitle("time of forward + backward: median and quartiles, left is faster")
    figure.savefig(RESULTS / "speed.png", dpi=100)


def leaderboard(found):
    """-ELBO against calls of f, a panel per board; a row that sums over all states is a line."""
    boards = [board for board in found if board != "environment"]
    size = 12, 9 * len(boards)
    figure, axes = plt.subplots(len(boards), 1, figsize=size, squeeze=False, layout="constrained")
    texts = {}
    for axis, board in zip(axes[:, 0], boards, strict=True):
        rows = [(n, r["calls of f"], *r["-ELBO"]) for n, r in results(found[board]).items()]
        # A row far above the others, at the upper edge, would press them together.
        top = 1.25 * np.nanmedian([mean for *_, mean, _ in rows])
        points = texts[axis] = []
        for name, calls, mean, error in rows:
            text, color = _method(name), COLORS[_kind(name)]
            if name.endswith("/exact"):
                axis.axhline(mean, color="black", ls="--", lw=1)
                right = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "bottom"}
                axis.text(0.99, mean, f"{text}, {calls:,} calls", fontsize=8, **right)
            elif mean < top:
                axis.errorbar(calls, mean, error, color=color, capsize=2)
                points.append((calls, mean, 1.06 * calls, text, _kind(name)))
            elif math.isfinite(mean):
                points.append((calls, top, 1.06 * calls, f"{text}, {mean:.1f}", _kind(name)))
        calls = sorted({x for x, *_ in points})
        axis.set_xscale("log", base=2)
        axis.set_xticks(calls, calls)
        axis.set(title=board, xlim=(0.9, 2.2 * calls[-1]))
        axis.set(xlabel="calls of f for a gradient", ylabel="-ELBO, nats (lower is better)")
    _annotate(figure, texts, "leaderboard")


def variance(found):
    """The standard deviation at the cost of one call of f against the bias, or, of unbiased rows,
    above 'none': one row is left of and below another where it is better in both."""
    size = 14, 7 * len(PANELS)
    figure, axes = plt.subplots(len(PANELS), 2, figsize=size, layout="constrained")
    texts = {}
    for line, (title, laws) in zip(axes, PANELS.items(), strict=True):
        for axis, problem in zip(line, ("small", "large"), strict=True):
            rows = results(found.get(problem, {}))
            rows = {n: row for n, row in rows.items() if n.startswith(laws) and row["std"]}
            unbiased = {n for n in rows if n in ESTIMATORS and ESTIMATORS[n].kind == "score"}
            bias = {n: max(row["bias"]) for n, row in rows.items() if n not in unbiased}
            if not bias:
                continue
            low, high = min(bias.values()), max(bias.values())
            decades = max(1, math.log10(high / low))
            none, beside = low / 10 ** (0.6 * decades), high * 10 ** (0.1 * decades)
            texts[axis] = [
                (x, row["std x sqrt(calls)"], right, _method(name), _kind(name))
                for name, row in rows.items()
                for x, right in [(bias[name], beside) if name in bias else (none, 1.15 * none)]
            ]
            powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
            ticks = [10.0**power for power in powers] or [low]
            axis.set(xscale="log", yscale="log", title=f"{title}, {problem} problem")
            axis.set_xlim(none / 10 ** (0.1 * decades), beside * 10 ** (0.7 * decades))
            axis.set_xticks([none, *ticks], ["none", *(f"{tick:.2g}" for tick in ticks)])
            axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            axis.set_xlabel("bias (what the draws can resolve, at least) / |gradient|")
            axis.set_ylabel("std x sqrt(calls of f) / |gradient|")
    figure.suptitle("left and down is better")
    _annotate(figure, texts, "variance")


def _kind(name):
    """Of a row with its settings."""
    row = ESTIMATORS.get(name.split(", ")[0])
    return row.kind if row else "gone"


def _method(name):
    """The method, and what is not seen from its calls of f."""
    estimator, *settings = name.split(", ")
    unseen = [text for text in settings if not text.startswith("num_") and "draws" not in text]
    method = estimator.replace("correlated/", "correlated ").split("/")[-1]
    shorter = ", ".join([method, *unseen]).replace("straight_through", "ST")
    return shorter.replace("temperature", "t")


def _annotate(figure, texts, name):
    """Draw the points (x, y, x of the text, text, kind) of each of the axes, and save: a text is as
    high as its point, or a line below the next, in the nearest places that allow it."""
    kinds = {}
    for axis, points in texts.items():
        axis.grid(alpha=0.3)
        for x, y, _, _, kind in points:
            (kinds[kind],) = axis.plot(x, y, MARKERS[kind], color=COLORS[kind], ms=5)
    figure.legend(kinds.values(), kinds.keys(), loc="outside lower center", ncols=len(kinds))
    figure.draw_without_rendering()  # for the height of the axes
    for axis, points in texts.items():
        line = 13 / axis.get_window_extent().height  # a text has 8 points, at 100 dots an inch
        scale = axis.transScale + axis.transLimits
        for column in {right for _, _, right, *_ in points}:
            own = sorted((p for p in points if p[2] == column), key=lambda p: p[1])
            steps = line * np.arange(len(own))
            heights = [scale.transform((x, y))[1] for x, y, *_ in own]
            places = isotonic_regression(heights - steps) + steps
            for (x, y, _, text, kind), place in zip(own, places, strict=True):
                at = scale.inverted().transform((scale.transform((column, y))[0], place))
                style = {"color": COLORS[kind], "fontsize": 8, "va": "center"}
                arrow = {"arrowstyle": "-", "lw": 0.4, "color": COLORS[kind]}
                axis.annotate(text, (x, y), at, arrowprops=arrow, **style)
    figure.savefig(RESULTS / f"{name}.png", dpi=100)


# The part without which there is none.
PICTURES = {speed: "laws", leaderboard: "8x4", variance: "small"}
