"""Write docs/benchmarks.md and its pictures from benchmarks/results."""

import json
import math
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
INTRODUCTION = """# Benchmarks

Written by `benchmarks/render.py` from `benchmarks/results`. Each part was measured by one command,
which `benchmarks/README.md` names, and `tests/test_benchmarks.py` says which results are older than
the code that they measured.
"""


def load(name):
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def machine(results):
    e = results["environment"]
    devices = ", ".join(sorted(set(e["devices"])))
    peers = ", ".join(
        f"{name} {e[name]}" for name in ("tfp-nightly", "numpyro", "torch") if e.get(name)
    )
    cores = f"{e['cores']} core" + "s" * (e["cores"] > 1)
    return (
        f"Python {e['python']}, jax {e['jax']}, jaxlib {e['jaxlib']}, {peers or 'no peers'}, "
        f"{e['system']}, {e['processor']}, {cores}, device {devices}."
    )


def cell(value):
    """A ratio is median and quartiles."""
    if isinstance(value, list):
        return "{:.2f} ({:.2f}-{:.2f})".format(*value)
    return "-" if value is None else value


def figures(results, head, pick=cell):
    """A line a name and a column a figure, of whatever figures there are."""
    columns = list(dict.fromkeys(key for row in results.values() for key in row))
    rows = [[f"`{n}`", *(pick(row.get(c)) for c in columns)] for n, row in results.items()]
    return table([head, *columns], rows)


# Why a row costs more than the same draw by plain autodiff or by another library.
SLOPE = (
    "The slope of the sigmoid has an exponential of its own: plain autodiff's p (1 - p) is 0 where "
    "p rounds to 1, from 17 on."
)
EXPLANATIONS = {
    "bernoulli/concrete": SLOPE,
    "bernoulli/straight_through": SLOPE,
    "bernoulli/stochastic_times_smooth": "It has no temperature: the program is the one without.",
}


def rows_of(part):
    """{row: figures}, and of a part that has no rows, its figures."""
    found = {row: record["results"] for row, record in part.items()}
    return found.get("all", found)


def losses(speed):
    """{row: {peer: ratio}} where our time is more than 1.05 of a peer's, and of its lower quartile
    more than 1."""
    over = {
        name: {
            key.removeprefix("over "): value
            for key, value in row.items()
            if key.startswith("over ") and not key.startswith(("over noise", "over copy"))
        }
        for name, row in rows_of(speed["laws"]).items()
    }
    for key, row in rows_of(speed["original"]).items():
        if isinstance(row, dict):
            name, entries = key.split(", ")
            median, low, high = row["times as fast"]
            over.setdefault(name, {})[f"the original, {entries}"] = [1 / median, 1 / high, 1 / low]
    lost = {
        name: {peer: v for peer, v in row.items() if v[0] > 1.05 and v[1] > 1}
        for name, row in over.items()
    }
    return {name: row for name, row in lost.items() if row}


def speed_page(speed):
    part = lambda name: rows_of(speed[name])
    parts = ["## Speed", machine(speed)]
    parts.append(
        "A ratio is the median over turns, in each of which all contestants run once, and its "
        "quartiles."
    )
    importing = cell(part("importing")["relaxjax over jax"])
    parts.append(f"`import relaxjax` takes {importing} times as long as `import jax`.")
    laws = part("laws")
    absent = sorted({v for row in laws.values() for k, v in row.items() if k.endswith("absent")})
    laws = {n: {k: v for k, v in r.items() if not k.endswith("absent")} for n, r in laws.items()}
    parts.append(
        "Forward + backward at 65,536 x 10, k = 5, counts to 15: milliseconds, and the time over "
        "that of the draw's own noise, of a copy of z, of the same draw by plain autodiff, and of "
        "other libraries' draws of the same law. 'Temperature too': with its gradient (for "
        "gates/gaussian that of scale). "
        + (f"Not measured: {'; '.join(absent)}." if absent else "")
    )
    parts.append("![Time over noise and over plain autodiff](../benchmarks/results/speed.png)")
    parts.append(figures(laws, "row"))
    parts.append("Against the PyTorch original, the parameter's gradient:")
    original = part("original")
    if "absent" in original:
        parts.append(f"Not measured: {original['absent']}.")
    else:
        versions = original.pop("versions")
        parts[-1] = f"Against the PyTorch original ({versions}), the parameter's gradient:"
        parts.append(figures(original, "row, entries"))
    lost = losses(speed)
    if lost:
        parts.append("Rows that are more than 1.05 times as slow as one of these, and why:")
        lines = [
            (
                f"`{name}`",
                "; ".join(f"{peer} {cell(v)}" for peer, v in row.items()),
                EXPLANATIONS.get(name, "-"),
            )
            for name, row in lost.items()
        ]
        parts.append(table(["row", "over", "why"], lines))
    parts.append(
        "Nanoseconds an entry, forward + backward, by entries, and in parentheses those of a copy "
        "of as many numbers as the draw holds (its noise, or z); the growth from the cheapest size "
        "to the largest over that of the copy"
        + (
            "; the share of the memory's bandwidth that must move at the largest size:"
            if any("share of bandwidth" in row for row in part("growth").values())
            else ":"
        )
    )
    pair = lambda v: "{} ({})".format(*v) if isinstance(v, list) else cell(v)
    parts.append(figures(part("growth"), "row", pair))
    parts.append("Nanoseconds an entry, forward + backward, 655,360 entries, by length of a row:")
    parts.append(figures(part("classes"), "row"))
    parts.append(
        "Temporary bytes of forward + backward of one row of n items, over those of n k numbers; "
        "what does not grow with n or k is O(n k):"
    )
    parts.append(figures(part("memory"), "row"))
    parts.append(
        "Every row in `value_and_grad` at 4,096 x 10 (`exact` and `unordered_set` at 10, "
        "`indecater` at 64 x 10), f a sum: time over as many random bits; bytes that the backward "
        "pass keeps, and temporary bytes of the whole, over those of logits; seconds to compile; "
        "compilations of 100 temperatures:"
    )
    parts.append(figures(part("rows"), "row"))
    parts.append(
        "How many times as fast as Gumbel arg-max the draw from one uniform is, by classes:"
    )
    parts.append(figures(part("hard_draws"), "classes"))
    parts.append(
        "Inclusion marginals of k-subsets and their gradient, n = 1,000, k = 50, over the "
        "fastest formulation, by rows at once:"
    )
    parts.append(figures(part("subset_marginals"), "rows"))
    return parts


def training_page(training):
    epoch, sweep, saves = training["epoch"], training["sweep"], training["checkpoints"]
    rows = [[name, value] for name, value in epoch["seconds"].items()]
    ratios = [[name, cell(v)] for name, v in (epoch["ratios"] | sweep["ratios"]).items()]
    ratios.append(["saves / training without", saves["saves / training without"]])
    return [
        "## Training",
        machine(training),
        "An epoch of the discrete VAE over 60,000 x 784 pixels, 20 bits, 400 hidden units, batch "
        f"128; PyTorch {epoch['torch'] or 'absent'}:",
        table(["", "seconds"], rows),
        f"Ratios, also of 16 temperatures in one program over {sweep['epochs']} epochs of digits, "
        f"and of checkpoints ({saves['saves']} in {saves['seconds']} s of training):",
        table(["", "ratio"], ratios),
        "Beside its products an epoch has Adam, which is bound by memory and divisions, and many "
        "loops over a batch (softplus, noise, gathers) that are too small for two cores.",
    ]


def settings(row):
    network = row["network"]
    parts = [f"{k} {v}" for k, v in row["hyperparameters"].items()]
    parts += [f"{row['keys']} draws"] * (row["keys"] > 1)
    if network:
        parts.append(f"{network[0]} factors" if network[0] else "linear part")
    return ", ".join(parts) or "-"


def apart(a, a_error, b, b_error):
    """a - b in combined standard errors."""
    return f"{(a - b) / math.hypot(a_error, b_error):.1f}"


def board_page(board):
    parts = ["## Digits boards", machine(board)]
    parts.append(
        "Exact -ELBO in nats after 600 epochs, mean and standard error over seeds, best first; z "
        "is the distance from the reference run in combined standard errors."
    )
    parts.append("![-ELBO against calls of f](../benchmarks/results/leaderboard.png)")
    parts.append(
        "In the picture ST is straight_through, and a row at the upper edge lies above it, at its "
        "number: the samples of `logit_concrete`, `log_gumbel_softmax` and "
        "`stochastic_times_smooth` are no bits or one-hots, of which the score is."
    )
    for name in dict.fromkeys(row["board"] for row in board["rows"]):
        rows = sorted(
            (r for r in board["rows"] if r["board"] == name), key=lambda r: r["negative_elbo"]
        )
        lines = []
        for r in rows:
            own = f"{r['negative_elbo']:.3f} +- {r['standard_error']:.3f}"
            reference, z = "-", "-"
            if r["reference"]:
                mean, error = r["reference"]
                reference = f"{mean:.3f} +- {error:.3f}"
                z = apart(r["negative_elbo"], r["standard_error"], mean, error)
            lines.append((f"`{r['estimator']}`", settings(r), r["evaluations"], own, reference, z))
        head = ["estimator", "settings", "calls of f", "-ELBO", "reference", "z"]
        parts += [f"### {name}", table(head, lines)]
    return parts


def mnist_page(mnist):
    parts = ["## MNIST boards", machine(mnist)]
    parts.append(
        "Nats, mean and standard error over seeds, best first: -ELBO, exact where the latent has "
        "at most 65,536 states and else by 100 draws, and the bound of 100 samples. "
        "`benchmarks/mnist.py` says what of the published recipes is not the same here."
    )
    pair = lambda v: f"{v[0]:.2f} +- {v[1]:.2f}"
    elbo = lambda r, part: r.get(f"exact_negative_elbo_{part}", r[f"negative_elbo_{part}"])
    for name in dict.fromkeys(row["board"] for row in mnist["rows"]):
        rows = [row for row in mnist["rows"] if row["board"] == name]
        lines = [
            (
                f"`{r['estimator']}`",
                ", ".join(r["settings"]) or "-",
                r["evaluations"],
                f"{r['epochs']} of {r['images']:,}",
                pair(elbo(r, "test")),
                pair(elbo(r, "train")),
                pair(r["negative_iwae_test"]),
            )
            for r in sorted(rows, key=lambda row: elbo(row, "test"))
        ]
        head = ["estimator", "settings", "calls of f", "epochs", "test", "train", "test, bound"]
        parts += [f"### {name}", table(head, lines)]
    return parts


def variance_page(variance):
    parts = ["## Bias and variance", machine(variance)]
    parts.append(
        "Norms over the coordinates as shares of the reference gradient's norm: what of the bias "
        "exceeds the draws' resolution (in parentheses), the standard deviation of one draw, and "
        "that at the cost of one call of f, std x sqrt(calls)."
    )
    parts.append("![Bias against standard deviation](../benchmarks/results/variance.png)")
    for size in ("small", "large"):
        lines = []
        for name, row in variance["rows"].items():
            found = row[size]
            if found:
                bias = f"{found['bias']} ({found['bias resolved to']})"
                cost = round(found["std"] * found["evaluations"] ** 0.5, 3)
                lines.append((f"`{name}`", bias, found["std"], found["evaluations"], cost))
        head = ["row", "bias", "std", "calls of f", "std x sqrt(calls)"]
        parts += [f"### {size.capitalize()} problems", table(head, lines)]
    return parts


def ideas_page(ideas):
    parts = ["## Ideas against `quadratic`", machine(ideas)]
    parts.append(
        "At two calls of f, eight factors; z is the audit's largest, at 100,000 draws. Ahead: how "
        "far of quadratic in the same run, in combined standard errors. An idea would win by more "
        "than three on both boards. The last row is none: with the exact gradient in logits, what "
        "is left is the noise of the decoder's own gradient at its two samples."
    )
    own = {row["board"]: row for row in ideas["rows"] if row["idea"] == "quadratic"}
    lines = []
    for row in ideas["rows"]:
        peer = own[row["board"]]
        lines.append(
            (
                row["idea"],
                row["board"],
                row["largest z of the bias"],
                f"{row['negative_elbo']:.3f} +- {row['standard_error']:.3f}",
                apart(
                    peer["negative_elbo"],
                    peer["standard_error"],
                    row["negative_elbo"],
                    row["standard_error"],
                ),
            )
        )
    return [*parts, table(["idea", "board", "z of the bias", "-ELBO", "ahead"], lines)]


def toys_page(toys):
    cell = lambda found: ", ".join(f"{name} {x:g}" for name, x in found.items())
    rows = [
        ("RELAX, t = .499: p after 10,000 steps, 0 is best, median of 6", cell(toys["relax"])),
        (
            "polynomial, 128 bits: E[f]; optimum .2025, straight-through .2475",
            cell(toys["polynomial"]),
        ),
        (
            "Double-CV, 200 bits, learned scale: how many times the variance",
            cell(toys["double_cv"]),
        ),
    ]
    return ["## Published toys", machine(toys), table(["toy", "result"], rows)]


def rendered():
    pages = {
        "speed": speed_page,
        "variance": variance_page,
        "leaderboard": board_page,
        "mnist": mnist_page,
        "ideas": ideas_page,
        "toys": toys_page,
        "training": training_page,
    }
    parts = [INTRODUCTION]
    for name, page in pages.items():
        results = load(name)
        parts += page(results) if results else []
    return "\n\n".join(parts).replace("\n\n\n", "\n\n") + "\n"


if __name__ == "__main__":
    import _plots  # not above: the page needs no matplotlib

    PAGE.write_text(rendered())
    _plots.variance(load("variance")["rows"])
    _plots.speed(rows_of(load("speed")["laws"]))
    _plots.leaderboard(load("leaderboard")["rows"])
