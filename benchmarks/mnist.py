"""The MNIST boards: -ELBO of the discrete VAE with each estimator, trained as in the literature.

8x4, 64x8 and 10x30 are ReinMax's (arXiv:2304.08612, and its program): pixels by intensity, 160
epochs of batches of 100, Adam 5e-4. There both networks have layers of 512 and 256 units, and the
two larger boards RAdam; here it is one layer of 512, and Adam.
200 bits are DisARM's (arXiv:2006.10680, and its program): pixels drawn anew, 10^6 steps of batches
of 50, Adam 1e-4. There both networks have two layers of 200 leaky ReLUs, and the prior learns;
here it is one layer of 200 ReLUs, and the prior is uniform.

A row is one run of examples/discrete_vae.py, of two seeds or more in one program, in a folder below
runs/, where one that was stopped goes on; `--dataset`, `--data-dir` and `--epochs` go to it.
"""

import functools
import json

from _harness import HERE, Job, asked, digest, measure, modules
from discrete_vae import main as train

RUNS = HERE.parent / "runs" / "mnist"


def _rows(law, hard, *others):
    """What every law has, and others; hard goes back through a relaxed draw."""
    rows = (
        "straight_through", f"{hard} temperature=1.0", f"{hard} temperature=0.5", "zgr", *others,
        "rloo num_samples=2", "rloo num_samples=4", "quadratic num_samples=2 factors=8",
    )  # fmt: skip
    return [f"{law}/{row}" for row in rows]


_REINMAX = "--binarize none --batch-size 100 --hidden 512 --learning-rate 5e-4"
_DISARM = "--binarize dynamic --batch-size 50 --hidden 200 --learning-rate 1e-4"
_BITS = _rows("bernoulli", "straight_through_concrete", "disarm num_samples=2")
_classes = lambda temperature: _rows(
    "categorical", "straight_through_gumbel_softmax", f"reinmax temperature={temperature}"
)
# The latent, epochs, other options of the example, and (estimator setting...) of each row.
BOARDS = {
    "8x4": ("8x4", 160, _REINMAX, _classes(1.3)),
    "64x8": ("64x8", 160, _REINMAX, _classes(1.5)),
    "10x30": ("10x30", 160, _REINMAX, _classes(1.3)),
    "200 bits": ("200", 833, _DISARM, _BITS),
}


def run(argv, folder):
    """One run of the example, and what stands in its metrics."""
    status = train([*argv, "--run-dir", str(folder), "--resume"])
    if status:
        raise SystemExit(status)
    found = json.loads((folder / "metrics.json").read_text())
    calls, epochs = found["evaluations_per_image"], found["epochs"]
    score = lambda name: [round(found[name], 4), round(found["standard_error"][name], 4)]
    # Exact where the latent has few enough states, else by samples.
    exact = "exact_" if "exact_negative_elbo_test" in found else ""
    return {
        "calls of f": calls,
        "epochs": f"{epochs} of {found['evaluations'] // (calls * epochs):,}",
        "-ELBO, test": score(f"{exact}negative_elbo_test"),
        "-ELBO, train": score(f"{exact}negative_elbo_train"),
        "-bound, test": score("negative_iwae_test"),
        "seconds": found["seconds"],
    }


def job(board, row, args):
    latent, epochs, recipe, _ = BOARDS[board]
    epochs = args.epochs or epochs
    settings = {"latent": latent, "dataset": args.dataset, "epochs": epochs, "seeds": args.seeds}
    estimator, *sets = row.split()
    used = modules(estimator)
    argv = [*recipe.split(), "--estimator", estimator]
    argv += [part for setting in sets for part in ("--set", setting)]
    argv += [part for name, x in settings.items() for part in (f"--{name}", str(x))]
    argv += ["--data-dir", args.data_dir] if args.data_dir else []
    folder = "-".join([estimator.replace("/", "-"), *sets, *map(str, settings.values())])
    return Job(functools.partial(run, argv, RUNS / f"{folder}-{digest(used)}"), used, settings)


def main(argv=None):
    args = asked(__doc__, argv, seeds=5, epochs=0, dataset="mnist", data_dir="")
    if args.seeds < 2:
        raise SystemExit(f"--seeds: got {args.seeds}, need 2 or more")
    table = {
        board: {row.replace(" ", ", "): job(board, row, args) for row in rows}
        for board, (*_, rows) in BOARDS.items()
    }
    measure("mnist", table, args)


if __name__ == "__main__":
    main()
