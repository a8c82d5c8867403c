"""Write the results between their markers in benchmarks/README.md."""

import json
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE / "README.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def load(name):
    return json.loads((HERE / "results" / f"{name}.json").read_text())


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def machine(results):
    e = results["environment"]
    devices = ", ".join(sorted(set(e["devices"])))
    return (
        f"Python {e['python']}, jax {e['jax']}, jaxlib {e['jaxlib']}, TFP "
        f"{e['tfp-nightly'] or e['tensorflow-probability'] or 'absent'}, {e['system']}, "
        f"{e['processor']}, {e['cores']} core{'s' * (e['cores'] > 1)}, device {devices}."
    )


def settings(row):
    return ", ".join(f"{k} {v}" for k, v in row["hyperparameters"].items()) or "-"


def training_lines(training):
    epoch, sweep, saves = training["epoch"], training["sweep"], training["checkpoints"]
    rows = [[name, value] for name, value in epoch["seconds"].items()]
    ratios = [[name, value] for name, value in (epoch["ratios"] | sweep["ratios"]).items()]
    ratios.append(["saves / training without", saves["saves / training without"]])
    return [
        "An epoch of the discrete VAE over 60,000 x 784 pixels, 20 bits, 400 hidden units, batch "
        f"128; PyTorch {epoch['torch'] or 'absent'}:",
        table(["", "seconds"], rows),
        f"Ratios, also of 16 temperatures in one program over {sweep['epochs']} epochs of digits, "
        f"and of checkpoints ({saves['saves']} in {saves['seconds']} s of training):",
        table(["", "ratio"], ratios),
    ]


def rendered():
    speed, training, board = load("speed"), load("training"), load("leaderboard")
    parts = ["## Speed", machine(speed)]
    parts.append(f"`import relaxjax` costs {speed['import']['relaxjax / jax']}x `import jax`.")
    parts.append(
        "Gumbel-softmax forward + backward, over the time of `jax.random.bits` of as many numbers, "
        "with the gradient in logits alone and in both logits and temperature; 'plain' is autodiff:"
    )
    shapes = [shape for shape in speed["gumbel_softmax"] if shape != "tfp_absent"]
    names = [name for name in speed["gumbel_softmax"][shapes[0]]["ratios"] if name != "bits"]
    ratio = lambda shape, name: speed["gumbel_softmax"][shape]["ratios"].get(name, "-")
    parts.append(table(["", *shapes], [[n, *(ratio(s, n) for s in shapes)] for n in names]))
    parts.append("The hard draw from one uniform over Gumbel arg-max, forward + backward, by C:")
    rules = list(speed["hard_draws"]["2"])
    draws = speed["hard_draws"]
    parts.append(table(["", *draws], [[r, *(f"{d[r]}x" for d in draws.values())] for r in rules]))
    parts.append("Every row at 65,536 x 10, over the time of as many random bits:")
    columns = list(next(iter(speed["rows"].values())))
    cell = lambda value: "-" if value is None else value
    rows = [[f"`{n}`", *(cell(r[c]) for c in columns)] for n, r in speed["rows"].items()]
    parts.append(table(["", *columns], rows))
    parts += ["## Training", machine(training), *training_lines(training)]
    parts += ["## Digits boards", machine(board)]
    parts.append(
        "Exact -ELBO in nats, mean and standard error over seeds; z is the distance from the"
    )
    parts[-1] += " reference run in combined standard errors."
    rows = [
        (
            r["board"],
            f"`{r['estimator']}`",
            settings(r),
            r["keys"],
            f"{r['negative_elbo']:.3f} +- {r['standard_error']:.3f}",
            f"{r['reference'][0]:.3f} +- {r['reference'][1]:.3f}",
            r["z"],
        )
        for r in board["rows"]
    ]
    head = ["board", "estimator", "hyperparameters", "draws", "-ELBO", "reference", "z"]
    parts.append(table(head, rows))
    return "\n\n".join(parts)


def written(text):
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{rendered()}\n{END}", text, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
