"""The command line and its twin in a file, and what they ask to train."""

import argparse
import contextlib
import difflib
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

import relaxjax
from relaxjax.catalog import ESTIMATORS, REQUIRED
from vae import latent as latents
from vae.checkpoint import write_text
from vae.data import BINARIZATIONS, IMAGE_SETS
from vae.errors import UsageError
from vae.model import Method, learns_critic

# What to use where only one of --estimator and --latent is given.
DEFAULT_ESTIMATOR = {
    "categorical": "categorical/reinmax",
    "bernoulli": "bernoulli/zgr",
    "subsets": "subsets/zgr",
}
SCHEDULES = {
    "linear": optax.linear_schedule,
    "cosine": lambda start, end, steps: optax.cosine_decay_schedule(start, steps, end / start),
    "exponential": lambda start, end, steps: optax.exponential_decay(start, steps, end / start),
}
# Of one call, not of what it computes: a config file holds the others.
OF_THE_CALL = (
    "run_dir", "resume", "plot_only", "config", "coordinator", "num_processes", "process_id",
)  # fmt: skip
CONFIG = "config.json"


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

    def group(title):
        add = parser.add_argument_group(title).add_argument
        return lambda *flags, default=argparse.SUPPRESS, **options: add(
            *flags, default=default, **options
        )

    add = group("method")
    add(
        "--estimator",
        metavar="NAME",
        help=f"a row of the catalog: {', '.join(ESTIMATORS)} "
        f"(default: {' or '.join(DEFAULT_ESTIMATOR.values())}, as the latent is)",
    )
    add(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        help="a hyperparameter of the estimator, also factors=8 of a quadratic; repeatable",
    )
    add(
        "--schedule",
        metavar="NAME=KIND:START:END",
        action="append",
        help=f"a real hyperparameter that goes from START to END, KIND one of "
        f"{', '.join(SCHEDULES)}; repeatable",
    )
    add(
        "--latent",
        metavar="SHAPE",
        help="a number of bits, counts or gates (12), CLASSESxVARIABLES of categoricals, points on "
        "simplices or counts with values (8x4: four of eight), or NchooseK (10choose3, 10choose3x2 "
        "for two subsets); the estimator says which (default: as the estimator needs)",
    )
    add("--iwae", metavar="K", type=at_least(2), help="train on VIMCO's bound of K samples instead")

    add = group("data")
    add(
        "--dataset",
        default="digits",
        help=f"the TFDS name of an image set: digits (built in), {', '.join(IMAGE_SETS)}, ...",
    )
    add(
        "--data-dir",
        metavar="DIR",
        help="the folder of TFDS, or one with the IDX files of MNIST or a set like it "
        "(default: TFDS's own)",
    )
    add(
        "--binarize",
        choices=BINARIZATIONS,
        default="static",
        help="a pixel is 1 from half intensity on, or is drawn anew each time, or its intensity",
    )

    add = group("training")
    add("--epochs", type=at_least(1), default=400)
    add(
        "--batch-size",
        type=at_least(1),
        default=96,
        help="images a step, over all devices, which share it evenly",
    )
    add("--learning-rate", type=positive, default=2e-3, help="of Adam")
    add("--hidden", type=at_least(1), default=64, help="units of each network's hidden layer")
    add("--seed", type=int, default=0)

    add = group("several trainings")
    add("--seeds", type=at_least(1), default=1, help="train so many seeds in one program")
    add(
        "--sweep",
        metavar="NAME=FROM:TO:COUNT",
        help="train so many values of a real hyperparameter in one program, evenly spaced in the "
        "logarithm where both ends are positive",
    )
    add(
        "--compare",
        metavar="NAMES",
        help="train several estimators in turn and write a table: names with commas, a law such as "
        "bernoulli, or all",
    )

    add = group("results")
    add(
        "--run-dir",
        metavar="DIR",
        type=pathlib.Path,
        help="a new or empty folder for the results (default: one under runs/)",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with the run in --run-dir, with its arguments; start it where there is none",
    )
    add("--plot-only", action="store_true", help="draw the pictures of the run in --run-dir anew")
    add(
        "--config",
        metavar="FILE",
        type=pathlib.Path,
        help=f"arguments from a run's {CONFIG}; those of the command line come first",
    )
    add(
        "--checkpoint-every",
        metavar="SECONDS",
        type=nonnegative,
        default=10.0,
        help="but never so often that it costs more than a fiftieth of the time",
    )

    add = group("several processes (found without flags on SLURM, Open MPI and TPU pods)")
    add("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    add("--num-processes", metavar="N", type=at_least(1))
    add("--process-id", metavar="I", type=int)
    return parser


def _number(kind, accept, need):
    def parse(text):
        with contextlib.suppress(ValueError):
            value = kind(text)
            if math.isfinite(value) and accept(value):
                return value
        raise argparse.ArgumentTypeError(f"got {text!r}, need {need}")

    return parse


def at_least(n):
    need = "a positive integer" if n == 1 else f"an integer of at least {n}"
    return _number(int, lambda value: value >= n, need)


positive = _number(float, lambda value: value > 0, "a positive number")
nonnegative = _number(float, lambda value: value >= 0, "a nonnegative number")


def parse(argv):
    """All arguments, where a run's folder and a config file have been asked too."""
    given = _given(argv)
    if "config" in given:
        given = _given(_read(given["config"])) | given
    folder = given.get("run_dir")
    if folder is None and ("resume" in given or "plot_only" in given):
        raise UsageError("--run-dir: got none, need the folder of the run")
    if "plot_only" in given and not (folder / CONFIG).exists():
        raise UsageError(f"--plot-only: got {folder}, need the folder of a run")
    if "plot_only" in given or "resume" in given and (folder / CONFIG).exists():
        stored = _given(_read(folder / CONFIG))
        for name, value in given.items():
            if name not in OF_THE_CALL and stored.get(name) != value:
                need = f"{stored.get(name)}, as the run in {folder} has"
                raise UsageError(f"{_flag(name)}: got {value}, need {need}")
        given = stored | given
    absent = dict.fromkeys(action.dest for action in parser()._actions if action.dest != "help")
    defaults = {name: value for name, value in vars(parser().parse_args([])).items()}
    return argparse.Namespace(**{**absent, "set": [], "schedule": [], **defaults, **given})


def _given(argv):
    """What argv has, without defaults."""
    own = parser()
    for action in own._actions:
        action.default = argparse.SUPPRESS
    args, unknown = own.parse_known_args(argv)
    if unknown:
        flags = [flag for flag in own._option_string_actions if flag.startswith("--")]
        need = difflib.get_close_matches(unknown[0], flags, n=3) or flags
        raise UsageError(f"{unknown[0]}: got an unknown argument, need one of {', '.join(need)}")
    return vars(args)


def _flag(name):
    return "--" + name.replace("_", "-")


def _read(path):
    """A config file, as a command line."""
    try:
        config = json.loads(path.read_text())
        pairs = [
            (_flag(name), str(item))
            for name, value in config.items()
            for item in (value if isinstance(value, list) else [value])
        ]
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"--config: got {path}, need a run's {CONFIG} ({error})") from None
    return [part for pair in pairs for part in pair]


def write(args, folder):
    """What reruns exactly these arguments by --config."""
    config = {
        name: value
        for name, value in vars(args).items()
        if name not in OF_THE_CALL and value not in (None, [])
    }
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")


# ------------------------------------------------------------------------- what is to be trained


def resolve(args):
    """(method, reals, schedules) for train.Task, checked against one another."""
    name, settings = args.estimator, dict(_setting(setting) for setting in args.set)
    if args.iwae:
        if name or settings:
            raise UsageError("--iwae: got an --estimator or --set beside it, need VIMCO alone")
        latent = latents.parse(args.latent or "12")
        row = {}
    else:
        if name is not None:
            with usage("--estimator"):
                relaxjax.estimator(name)
        latent = latents.parse(
            args.latent or latents.default(name or DEFAULT_ESTIMATOR["categorical"]),
            name and latents.law_of(name),
        )
        name = name or DEFAULT_ESTIMATOR[latent.law]
        with usage("--set"):
            relaxjax.estimator(name, **settings)
        row = ESTIMATORS[name].hyperparameters
        row |= {key: x for key, x in needed(latent).items() if row.get(key) is REQUIRED}
        # What a network makes is not set.
        for key in {"critic", "critic_params"} & set(row) if learns_critic(name) else ():
            row.pop(key)
            if key in settings:
                raise UsageError(f"--set {key}: got {settings[key]}, need none: it is learned")
    if "k" in row:
        if settings.get("k", latent.k) != latent.k:
            raise UsageError(f"--set k: got {settings['k']}, need {latent.k}, as --latent says")
        settings["k"] = latent.k
    real = numbers(name) if name else []
    static = {key: settings.get(key, row[key]) for key in row if key not in real}
    reals = {key: settings.get(key, row[key]) for key in real}
    method = Method(latent, name, static, args.iwae or 1)

    schedules, ends = {}, []
    for text in args.schedule:
        key, kind, start, end = _fields("--schedule", text, "NAME=KIND:START:END", real, 4)
        if kind not in SCHEDULES:
            raise UsageError(f"--schedule {key}: got {kind!r}, need one of {', '.join(SCHEDULES)}")
        start, end = _numbers("--schedule", key, start, end)
        if kind != "linear" and not (start > 0 and end > 0):
            raise UsageError(f"--schedule {key}: got {text}, need positive ends, or linear")
        ends += [{key: start}, {key: end}]
        schedules[key] = kind, start, end
    if args.sweep:
        key, start, end, count = _fields("--sweep", args.sweep, "NAME=FROM:TO:COUNT", real, 4)
        start, end, count = _numbers("--sweep", key, start, end, count)
        if count < 2 or count != int(count):
            raise UsageError(f"--sweep {key}: got {args.sweep}, need two values or more")
        ends += [{key: start}, {key: end}]
        space = np.geomspace if start > 0 and end > 0 else np.linspace
        reals[key] = space(start, end, int(count)).astype(np.float32)
    for values in ends or [{}]:
        _try(method, {**reals, **values})
    return method, reals, schedules


def numbers(estimator):
    """The hyperparameters that are one number, which is real: to be set, scheduled and swept."""
    row = ESTIMATORS[estimator].real
    return [key for key, x in row.items() if np.shape(x) == () and x not in (None, REQUIRED)]


def needed(latent):
    """What the program decides of hyperparameters without a default."""
    return {"truncation": 20, "values": tuple(map(float, range(latent.shape[-1])))}


def schedule(kind, start, end, steps):
    return SCHEDULES[kind](start, end, steps)


def _try(method, reals):
    """Without arithmetic: a wrong value shows before anything runs or is written."""
    pixels = 2

    def loss(key, x):
        vae, control = method.networks(pixels, 2, key)
        return method.loss(vae, control, reals, key, x)

    with usage("--set"):
        jax.eval_shape(loss, jax.random.key(0), jax.ShapeDtypeStruct((pixels,), jnp.float32))


def _setting(text):
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set: got {text!r}, need name=value")
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return key, number(value)
    raise UsageError(f"--set {key}: got {value!r}, need a number")


def _fields(flag, text, form, real, count):
    fields = text.replace("=", ":", 1).split(":")
    if len(fields) != count or "=" not in text:
        raise UsageError(f"{flag}: got {text!r}, need {form}")
    if fields[0] not in real:
        need = ", ".join(real) or "an estimator that has real hyperparameters"
        raise UsageError(f"{flag}: got {fields[0]}, need {need}")
    return fields


def _numbers(flag, key, *texts):
    try:
        return [float(text) for text in texts]
    except ValueError as error:
        raise UsageError(f"{flag} {key}: {error}, need numbers") from None


@contextlib.contextmanager
def usage(argument):
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{argument}: {error}".replace(f"{argument}: name:", f"{argument}:")
        ) from None


# ---------------------------------------------------------------------------------- comparisons


def compared(args):
    """The rows that --compare names, of those whose law takes the latent."""
    for name in ("estimator", "iwae", "sweep", "schedule"):
        if getattr(args, name):
            raise UsageError(f"--compare: got {_flag(name)} beside it, need none")
    rows = [name for name, row in ESTIMATORS.items() if args.compare in ("all", row.law)]
    if rows:
        rows = [name for name in rows if not args.latent or _takes(name, args.latent)]
        if not rows:
            raise UsageError(f"--compare: got {args.compare}, none of which takes {args.latent}")
    else:
        rows = args.compare.split(",")
        for name in rows:
            with usage("--compare"):
                relaxjax.estimator(name)
    for text in args.set:
        key, _ = _setting(text)
        if not any(key in ESTIMATORS[name].hyperparameters for name in rows):
            raise UsageError(f"--set {key}: got it for {args.compare}, none of which has it")
    return rows


def _takes(name, latent):
    with contextlib.suppress(UsageError):
        latents.parse(latent, latents.law_of(name))
        return True
    return False


def of_estimator(args, name):
    """The arguments of the run of one row in a comparison."""
    row = ESTIMATORS[name].hyperparameters
    own = [text for text in args.set if _setting(text)[0] in row]
    return argparse.Namespace(**{**vars(args), "estimator": name, "set": own, "compare": None})
