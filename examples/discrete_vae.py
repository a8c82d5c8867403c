"""Train a discrete VAE with any estimator of relaxjax.

    python examples/discrete_vae.py --estimator categorical/reinmax --latent 8x4

trains on held-in digits, prints -ELBO on held-out ones, and writes pictures and metrics to a run
folder. `--estimator` takes any row of `relaxjax.catalog.ESTIMATORS` whose law the latent fits.
"""

import argparse
import contextlib
import datetime
import difflib
import json
import pathlib
import shutil
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

import relaxjax
from relaxjax.catalog import ESTIMATORS
from vae import data as datasets
from vae import evaluate, plots, train
from vae import latent as latents
from vae.errors import UsageError

# What to use where --latent alone is given.
DEFAULT_ESTIMATOR = {
    "categorical": "categorical/reinmax",
    "bernoulli": "bernoulli/zgr",
    "subsets": "subsets/zgr",
}
NUM_DRAWS = 100


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(message.removeprefix("argument "))


def parser():
    parser = Parser(
        prog="discrete_vae.py",
        description="Train a discrete VAE with any estimator of relaxjax.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--estimator",
        metavar="NAME",
        help=f"a row of the catalog: {', '.join(ESTIMATORS)} "
        f"(default: {' or '.join(DEFAULT_ESTIMATOR.values())}, as the latent is)",
        default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a hyperparameter of the estimator; repeatable",
    )
    parser.add_argument("--dataset", default="digits", help="the TFDS name of an image set")
    parser.add_argument(
        "--latent",
        metavar="SHAPE",
        help="CLASSESxVARIABLES (8x4: four categoricals of eight classes), a number of bits (12) "
        "or NchooseK (10choose3: three of ten items) (default: 8x4, or what suits the estimator)",
        default=argparse.SUPPRESS,
    )
    parser.add_argument("--epochs", type=positive, default=400)
    parser.add_argument("--batch-size", type=positive, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--run-dir",
        type=pathlib.Path,
        default=argparse.SUPPRESS,
        help="a new or empty folder for the results (default: one under runs/)",
    )
    return parser


def parse(argv):
    args, unknown = parser().parse_known_args(argv)
    if unknown:
        flags = [flag for flag in parser()._option_string_actions if flag.startswith("--")]
        need = difflib.get_close_matches(unknown[0], flags, n=3) or flags
        raise UsageError(f"{unknown[0]}: got an unknown argument, need one of {', '.join(need)}")
    return args


def positive(text):
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, need a positive integer")
    return value


def resolve(args):
    """The estimator's name, its hyperparameters and the latent, checked against one another."""
    name = getattr(args, "estimator", None)
    if name is None:
        latent = latents.parse(getattr(args, "latent", "8x4"))
        name = DEFAULT_ESTIMATOR[latent.law]
    elif name not in ESTIMATORS:
        with usage("--estimator"):
            relaxjax.estimator(name)
    text = getattr(args, "latent", latents.default(name))
    latent = latents.parse(text, latents.law_of(name))
    given = dict(parse_setting(name, setting) for setting in args.set)
    if latent.k is not None:
        if "k" in given:
            raise UsageError(f"--set k: got {given['k']}, need it in --latent, such as 10choose3")
        given["k"] = latent.k
    with usage("--set"):
        estimate = relaxjax.estimator(name, **given)
        # A trial without arithmetic: a wrong value shows before anything runs or is written.
        logits = jax.ShapeDtypeStruct(latent.shape, jnp.float32)
        jax.eval_shape(lambda key, l: estimate(key, jnp.sum, l), jax.random.key(0), logits)
    return name, {**ESTIMATORS[name].hyperparameters, **given}, latent, estimate


def parse_setting(name, setting):
    key, equals, text = setting.partition("=")
    if not equals:
        raise UsageError(f"--set: got {setting!r}, need name=value")
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return key, number(text)
    raise UsageError(f"--set {key}: got {text!r}, need a number")


@contextlib.contextmanager
def usage(argument):
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{argument}: {error}".replace(f"{argument}: name:", f"{argument}:")
        ) from None


@contextlib.contextmanager
def run_folder(path):
    """A folder to write in, which becomes path only when everything has been written."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"--run-dir: got {path}, which exists, need a new or empty folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise UsageError(
            f"--run-dir: got {path}, need a folder that can be written ({error.strerror})"
        ) from None
    try:
        yield staging
        staging.chmod(0o755)
        staging.replace(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def run(args):
    name, hyperparameters, latent, estimate = resolve(args)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    default = pathlib.Path("runs", f"{stamp}-{name.replace('/', '-')}-{latent.name}")
    path = getattr(args, "run_dir", default)
    dataset = datasets.load(args.dataset)
    if args.batch_size > len(dataset.train):
        raise UsageError(
            f"--batch-size: got {args.batch_size}, need at most {len(dataset.train)} images"
        )
    with run_folder(path) as folder:
        print(f"{name} on {args.dataset}, latent {latent.name}, {args.epochs} epochs")
        start = time.perf_counter()
        law = latents.build(latent, hyperparameters)
        model, curves = train.train(
            dataset,
            latent,
            law,
            estimate,
            epochs=args.epochs,
            batch_size=args.batch_size,
            seed=args.seed,
        )
        seconds = time.perf_counter() - start
        scores = score(model, law, dataset, jax.random.key(args.seed))
        metrics = {
            "estimator": name,
            "hyperparameters": {k: plain(v) for k, v in hyperparameters.items()},
            "dataset": args.dataset,
            "latent": latent.name,
            "seed": args.seed,
            "epochs": args.epochs,
            "batch_size": args.batch_size,
            "seconds": round(seconds, 3),
            **scores,
        }
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        draw(folder, model, law, dataset, curves, metrics)
    for key, value in scores.items():
        print(f"{key:29} {value:8.3f} nats")
    print(f"trained in {seconds:.1f} s; results in {path}")
    return metrics


def plain(value):
    """A hyperparameter as JSON has it."""
    return value.__name__ if callable(value) else value


def score(model, law, dataset, key):
    sampled = jax.jit(
        lambda model, images: evaluate.sampled_negative_elbo(model, law, key, images, NUM_DRAWS)
    )
    exact = jax.jit(lambda model, images: evaluate.exact_negative_elbo(model, law, images))
    scores = {}
    for split in ("train", "test"):
        images = jnp.asarray(getattr(dataset, split))
        scores[f"negative_elbo_{split}"] = float(sampled(model, images))
        if law.states <= evaluate.MAX_STATES:
            scores[f"exact_negative_elbo_{split}"] = float(exact(model, images))
    return dict(sorted(scores.items(), key=lambda item: item[0].startswith("exact")))


def draw(folder, model, law, dataset, curves, metrics):
    key_z, key_prior = jax.random.split(jax.random.key(metrics["seed"]))
    originals = jnp.asarray(dataset.test[:30])
    z = law.family.sample(key_z, model.encode(originals))
    prior = law.family.sample(key_prior, jnp.broadcast_to(law.prior, (50, *law.prior.shape)))
    pictures = [np.asarray(jax.nn.sigmoid(model.decode(z))) for z in (z, prior)]
    plots.reconstructions(
        folder / "reconstructions.png", dataset.test[:30], pictures[0], dataset.shape
    )
    plots.samples(folder / "samples.png", pictures[1], dataset.shape)
    plots.curves(
        folder / "curves.png", curves, f"{metrics['estimator']}, latent {metrics['latent']}"
    )


def main(argv=None):
    try:
        run(parse(argv))
    except UsageError as error:
        print(f"discrete_vae.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("discrete_vae.py: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
