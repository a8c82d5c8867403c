"""What a run leaves to read: its metrics, its pictures, and a table of several."""

import math
from typing import NamedTuple

import jax
import numpy as np

from vae import data, plots, train

NUM_DRAWS = 100
EXACT, BOUND = "exact_negative_elbo_test", "negative_iwae_test"
LABELS = {EXACT: "exact -ELBO", BOUND: f"-bound of {NUM_DRAWS} samples"}


class Pictures(NamedTuple):
    originals: np.ndarray
    decoded: np.ndarray
    samples: np.ndarray
    shape: tuple[int, ...]


def metrics(args, task, state):
    """The settings and each score: its mean over seeds, and a list of members where there are."""
    method, scores = task.method, train.scores(task, state, NUM_DRAWS)
    settings = hyperparameters(method, task.reals)
    evaluations = args.iwae or method.row().evaluations(method.latent.shape)
    schedules = dict(text.split("=") for text in args.schedule)
    result = {
        "estimator": method.estimator or "vimco",
        "hyperparameters": settings | schedules,
        "dataset": args.dataset,
        "binarize": args.binarize,
        "latent": method.latent.name,
        "seed": args.seed,
        "seeds": args.seeds,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "seconds": round(float(state.seconds), 3),
        "evaluations_per_image": evaluations,
        "evaluations": evaluations * args.epochs * task.batches * args.batch_size,
        "iwae_samples": NUM_DRAWS,
    }
    if not task.swept:
        result |= {name: float(np.mean(values)) for name, values in scores.items()}
        if len(task.seeds) > 1:
            error = lambda values: np.std(values, ddof=1) / math.sqrt(len(task.seeds))
            result["standard_error"] = {name: error(values) for name, values in scores.items()}
    if train.member_shape(task):
        result["members"] = [
            train.member(task, index)
            | {name: float(values[index]) for name, values in scores.items()}
            for index in np.ndindex(train.member_shape(task))
        ]
    return result


def hyperparameters(method, reals):
    """As JSON has them."""
    return {key: np.asarray(x).tolist() for key, x in {**method.static, **reals}.items()}


def judged_by(metrics):
    """The best score there is: the exact -ELBO, or the bound by samples."""
    return EXACT if EXACT in metrics.get("members", [metrics])[0] else BOUND


def text(metrics):
    """The scores, for a terminal."""
    if "hyperparameters" not in metrics:
        return ""
    lines = []
    if any(name.endswith("_test") for name in metrics):
        for name, value in metrics.items():
            if name.endswith(("_train", "_test")):
                lines.append(f"{name:29} {value:8.3f}{_error(metrics, name)} nats")
        return "\n".join(lines)
    score = judged_by(metrics)
    for member in metrics["members"]:
        settings = ", ".join(
            f"{name} {value:.4g}" for name, value in member.items() if "negative" not in name
        )
        lines.append(f"{settings:29} {score} {member[score]:8.3f} nats")
    return "\n".join(lines)


def _error(metrics, name):
    return f" +- {metrics['standard_error'][name]:.3f}" if "standard_error" in metrics else ""


def table(rows):
    """Markdown, the best first."""
    lines = [
        "| estimator | latent | test, nats | train, nats | score | seconds | f evaluations |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row[judged_by(row)]):
        score = judged_by(row)
        test, train = (
            f"{row[name]:.3f}{_error(row, name)}"
            for name in (score, score.replace("_test", "_train"))
        )
        lines.append(
            f"| `{row['estimator']}` | {row['latent']} | {test} | {train} | {LABELS[score]} | "
            f"{row['seconds']:.1f} | {row['evaluations']:,} |"
        )
    return "\n".join(lines) + "\n"


def draw(folder, args, task, state, dataset, metrics):
    """Writes the pictures, the digits by the best member, and returns those."""
    scores, best = None, (0,) * len(train.member_shape(task))
    if "members" in metrics:
        scores = np.array([member[judged_by(metrics)] for member in metrics["members"]])
        scores = scores.reshape(train.member_shape(task))
        best = np.unravel_index(np.nanargmin(scores), scores.shape)
    pictures = _pictures(args, task, train.member_params(state, best), best, dataset)
    plots.reconstructions(folder / "reconstructions.png", pictures)
    plots.samples(folder / "samples.png", pictures)
    title = f"{args.estimator or 'VIMCO'}, latent {args.latent}"
    if task.swept:
        values = task.reals[task.swept]
        by_value = np.moveaxis(state.losses[..., 1], -2, 0)
        lines = {f"{task.swept} {v:.3g}": x for v, x in zip(values, by_value, strict=True)}
        if scores is not None:
            label, table = LABELS[judged_by(metrics)], scores.reshape(-1, len(values))
            plots.sweep(folder / "sweep.png", task.swept, values, table, label, title)
    else:
        lines = {"training loss": state.losses[..., 0], "held-out -ELBO": state.losses[..., 1]}
    plots.curves(folder / "curves.png", lines, title)
    return pictures


def _pictures(args, task, params, index, dataset):
    law = task.method.law(train.last_reals(task, index))
    rows = data.read(dataset.test, args.binarize, 0, 30)

    @jax.jit
    def decode(params, rows, keys):
        vae, _ = task.networks(params)
        originals = data.pixels(jax.random.key(0), rows, args.binarize)
        z = jax.vmap(law.family.sample)(keys[50:], vae.encode(originals))
        prior = jax.vmap(law.family.sample, (0, None))(keys[:50], law.prior)
        return originals, *(jax.nn.sigmoid(vae.decode(x)) for x in (z, prior))

    keys = jax.random.split(jax.random.key(args.seed), 50 + len(rows))
    return Pictures(*map(np.asarray, decode(params, rows, keys)), dataset.shape)
