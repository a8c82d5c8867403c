"""The MNIST boards: -ELBO of the discrete VAE with each estimator, trained as in the literature.

8x4, 64x8 and 10x30 are ReinMax's (arXiv:2304.08612, and its program): pixels by intensity, 160
epochs of batches of 100, Adam 5e-4. There both networks have layers of 512 and 256 units, and the
two larger boards RAdam; here it is one layer of 512, and Adam.
200 bits are DisARM's (arXiv:2006.10680, and its program): pixels drawn anew, 10^6 steps of batches
of 50, Adam 1e-4. There both networks have two layers of 200 leaky ReLUs, and the prior learns;
here it is one layer of 200 ReLUs, and the prior is uniform.

A row is one run of examples/discrete_vae.py, all seeds in one program, in a folder below runs/;
`--dataset`, `--data-dir` and `--epochs` go to it. A run that is stopped goes on where it was.
"""

import argparse
import json
import pathlib
import sys
from typing import NamedTuple

from _common import digest, modules, read, write

ROOT = pathlib.Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs" / "mnist"
sys.path.insert(0, str(ROOT / "examples"))
import discrete_vae  # noqa: E402
from vae import options  # noqa: E402


class Board(NamedTuple):
    """A latent of the example, its options, and (estimator, settings) of each row."""

    latent: str
    epochs: int
    options: list[str]
    rows: list[tuple[str, list[str]]]


def _categorical(temperature):
    """Its rows; temperature is that of ReinMax as published."""
    stgs = "categorical/straight_through_gumbel_softmax"
    return [
        ("categorical/straight_through", []),
        (stgs, ["temperature=1.0"]),
        (stgs, ["temperature=0.5"]),
        ("categorical/reinmax", [f"temperature={temperature}"]),
        ("categorical/zgr", []),
        ("categorical/rloo", ["num_samples=2"]),
        ("categorical/rloo", ["num_samples=4"]),
        ("categorical/quadratic", ["num_samples=2", "factors=8"]),
    ]


_BITS = [
    ("bernoulli/straight_through", []),
    ("bernoulli/straight_through_concrete", ["temperature=1.0"]),
    ("bernoulli/straight_through_concrete", ["temperature=0.5"]),
    ("bernoulli/zgr", []),
    ("bernoulli/disarm", ["num_samples=2"]),
    ("bernoulli/rloo", ["num_samples=2"]),
    ("bernoulli/rloo", ["num_samples=4"]),
    ("bernoulli/quadratic", ["num_samples=2", "factors=8"]),
]
_REINMAX = "--binarize none --batch-size 100 --hidden 512 --learning-rate 5e-4".split()
_DISARM = "--binarize dynamic --batch-size 50 --hidden 200 --learning-rate 1e-4".split()
BOARDS = {
    "8x4": Board("8x4", 160, _REINMAX, _categorical(1.3)),
    "64x8": Board("64x8", 160, _REINMAX, _categorical(1.5)),
    "10x30": Board("10x30", 160, _REINMAX, _categorical(1.3)),
    "200 bits": Board("200", 833, _DISARM, _BITS),
}


def run(asked, data):
    """One run of the example, and what stands in its metrics."""
    board, settings = BOARDS[asked["board"]], asked["settings"]
    name = [asked["board"], asked["estimator"], *settings, *map(str, list(asked.values())[3:])]
    folder = RUNS / "-".join(name).replace("/", "-").replace(" ", "-")
    argv = ["--latent", board.latent, "--estimator", asked["estimator"], *board.options, *data]
    argv += [part for setting in settings for part in ("--set", setting)]
    argv += ["--epochs", str(asked["epochs"]), "--seeds", str(asked["seeds"])]
    status = discrete_vae.main([*argv, "--run-dir", str(folder), "--resume"])
    if status:
        raise SystemExit(status)
    metrics = json.loads((folder / "metrics.json").read_text())
    scores = {
        score: [round(metrics[score], 4), round(error, 4)]
        for score, error in metrics["standard_error"].items()
    }
    calls = metrics["evaluations_per_image"]
    return {
        "evaluations": calls,
        "images": metrics["evaluations"] // (calls * asked["epochs"]),
        "seconds": metrics["seconds"],
    } | scores


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", nargs="+", choices=BOARDS, default=list(BOARDS))
    parser.add_argument("--seeds", type=options.at_least(2), default=5)
    parser.add_argument("--epochs", type=options.at_least(1), help="instead of the board's own")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir")
    args = parser.parse_args(argv)
    data = ["--dataset", args.dataset]
    data += ["--data-dir", args.data_dir] if args.data_dir else []
    done = read("mnist").get("rows", [])
    for name in args.boards:
        for estimator, settings in BOARDS[name].rows:
            row = {"board": name, "estimator": estimator, "settings": settings}
            asked = row | {
                "dataset": args.dataset,
                "epochs": args.epochs or BOARDS[name].epochs,
                "seeds": args.seeds,
                "code": digest(modules(estimator)),
            }
            if not any(asked.items() <= old.items() for old in done):
                found = asked | run(asked, data)
                done = [old for old in done if not row.items() <= old.items()] + [found]
                write("mnist", {"rows": done})


if __name__ == "__main__":
    main()
