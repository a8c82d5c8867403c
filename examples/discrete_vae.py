"""Train a discrete VAE with any estimator of relaxjax.

    python examples/discrete_vae.py --estimator categorical/reinmax --latent 8x4

trains on held-in digits, prints -ELBO on held-out ones, and writes pictures, metrics and
checkpoints to a run folder. `--estimator` takes any row of `relaxjax.catalog.ESTIMATORS`.
"""

import contextlib
import datetime
import functools
import json
import os
import pathlib
import sys
import time
import warnings
from typing import NamedTuple

import jax
import numpy as np

from vae import data, options, plots, report, runtime, train
from vae.checkpoint import Checkpoints, locked, write_text
from vae.errors import RunError, UsageError
from vae.log import Log

PROGRAM = "discrete_vae.py"
METRICS = "metrics.json"  # the last file that a run writes


class Result(NamedTuple):
    """Of one run, what a comparison shows."""

    metrics: dict
    held_out: np.ndarray
    pictures: report.Pictures


def prepare(args):
    """The Task that the arguments ask for, and its data; completes the arguments."""
    method, reals, schedules = options.resolve(args)
    mesh = runtime.mesh()
    with runtime.writer_first():
        dataset = data.load(args.dataset, args.data_dir)
    sizes = len(dataset.train), len(dataset.test)
    args.estimator, args.latent = method.estimator, method.latent.name
    if args.batch_size > sizes[0]:
        raise UsageError(f"--batch-size: got {args.batch_size}, need at most {sizes[0]} images")
    if args.batch_size % mesh.size:
        need = f"a multiple of {mesh.size}, the number of devices"
        raise UsageError(f"--batch-size: got {args.batch_size}, need {need}")
    rows = [
        runtime.shard(mesh, functools.partial(data.read, images, args.binarize), len(images))
        for images in (dataset.train, dataset.test)
    ]
    steps = args.epochs * (sizes[0] // args.batch_size)
    task = train.Task(
        method,
        mesh,
        *rows,
        sizes,
        binarize=args.binarize,
        reals=reals,
        schedules={name: options.schedule(*ends, steps) for name, ends in schedules.items()},
        seeds=tuple(range(args.seed, args.seed + args.seeds)),
        epochs=args.epochs,
        batch_size=args.batch_size,
        hidden=args.hidden,
        learning_rate=args.learning_rate,
    )
    return task, dataset


def run(args, folder):
    """Train, score and draw in folder, from where a run there stopped; the writer's Result."""
    task, dataset = prepare(args)
    checkpoints = Checkpoints(folder, args.checkpoint_every)
    metrics = {}
    with only_run_in(args, folder):
        state = train.start(task)
        if runtime.is_writer():
            state = checkpoints.restore(state) or state
            if (folder / METRICS).exists():
                metrics = json.loads((folder / METRICS).read_text())
        state = runtime.from_writer(state)
        if args.plot_only:
            if not int(state.epoch):
                raise UsageError(f"--plot-only: got {folder}, which has no checkpoint, need one")
        else:
            state = fit(args, task, state, checkpoints, folder)
            if not runtime.from_writer(bool(metrics)):
                metrics = report.metrics(args, task, state)
        if not runtime.is_writer():
            return None
        state = jax.tree.map(np.asarray, state)
        pictures = report.draw(folder, args, task, state, dataset, metrics)
        if not args.plot_only:
            write_text(folder / METRICS, json.dumps(metrics, indent=2) + "\n")
    return Result(metrics, state.losses[..., 1], pictures)


@contextlib.contextmanager
def only_run_in(args, folder):
    """Locks folder and notes the arguments in it; nothing where there is nothing to write."""
    if args.plot_only or not runtime.is_writer():
        yield
        return
    with locked(folder):
        if not (folder / options.CONFIG).exists():
            options.write(args, folder)
        yield


def fit(args, task, state, checkpoints, folder):
    """The State after the last epoch, saved."""
    if int(state.epoch) == args.epochs:
        return state
    with runtime.stop_requests() as asked:
        if runtime.is_writer():
            return fit_and_write(args, task, state, checkpoints, folder, asked)

        def after_epoch(state):
            if asked:
                raise KeyboardInterrupt

        return train.train(task, state, after_epoch)


def fit_and_write(args, task, state, checkpoints, folder, asked):
    method = args.estimator or f"VIMCO of {args.iwae} samples"
    epochs = f"epochs {int(state.epoch) + 1} to {args.epochs}"
    print(f"{method} on {args.dataset}, latent {args.latent}, {epochs}", flush=True)
    began, before, last = time.perf_counter(), float(state.seconds), state
    timed = lambda: last._replace(seconds=np.float32(before + time.perf_counter() - began))

    def after_epoch(state):
        nonlocal last
        last = state
        log.add(state)
        if asked or checkpoints.due():
            log.flush()
            checkpoints.save(timed())
        if asked:
            raise KeyboardInterrupt

    with Log(folder, task, state) as log:
        try:
            train.train(task, state, after_epoch)
            last = timed()
            checkpoints.save(last)
        except RunError as error:
            with contextlib.suppress(RunError):
                checkpoints.save(timed())
            good = next(iter(checkpoints.committed()), "none")
            raise RunError(f"{error}; the last good checkpoint is {good}") from None
        except jax.errors.JaxRuntimeError:  # another process has died
            checkpoints.save(timed())
            raise
    return last


def compare(args, folder):
    """A run for each estimator in a folder below, then a table and pictures of all."""
    each = {name: options.of_estimator(args, name) for name in options.compared(args)}
    for own in each.values():
        options.resolve(own)  # a wrong argument shows before anything is written
    prepare(next(iter(each.values())))
    with only_run_in(args, folder):
        results = {name: run(own, folder / name.replace("/", "-")) for name, own in each.items()}
        if runtime.is_writer():
            metrics = [result.metrics for result in results.values()]
            if all(metrics):  # --plot-only takes what there is
                table = report.table(metrics)
                write_text(folder / "table.md", table)
                write_text(folder / "table.json", json.dumps(metrics, indent=2) + "\n")
                print(table)
            held_out = {name: result.held_out for name, result in results.items()}
            plots.curves(folder / "curves.png", held_out, "Held-out -ELBO by samples")
            pictures = {name: result.pictures for name, result in results.items()}
            plots.estimators(folder / "estimators.png", pictures)
            print(f"results in {folder}")


def folder_of(args):
    """Where the results go: a folder without another run's."""
    if args.run_dir is None:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        what = args.compare or args.estimator or (f"iwae{args.iwae}" if args.iwae else "default")
        return pathlib.Path("runs", f"{stamp}-{what.replace('/', '-').replace(',', '-')}")
    folder, resumable = args.run_dir, (args.run_dir / options.CONFIG).exists()
    if args.plot_only or (args.resume and resumable):
        return folder
    # What a run leaves that was killed before it began has a name with a dot.
    mine = lambda path: not path.name.startswith(".")
    if folder.exists() and (not folder.is_dir() or any(filter(mine, folder.iterdir()))):
        raise UsageError(f"--run-dir: got {folder}, which exists, need a new or empty folder")
    if args.resume:
        print(f"nothing to resume in {folder}: starting")
    return folder


def main(argv=None):
    folder = None
    try:
        args = options.parse(sys.argv[1:] if argv is None else argv)
        runtime.initialize(args.coordinator, args.num_processes, args.process_id)
        folder = folder_of(args)
        if args.compare:
            compare(args, folder)
        else:
            result = run(args, folder)
            if result and not args.plot_only:
                print(report.text(result.metrics))
                print(f"trained in {result.metrics['seconds']:.1f} s; results in {folder}")
        return 0
    except KeyboardInterrupt:
        return fail(f"interrupted; {how_to_go_on(folder)}", 130)
    except UsageError as error:
        return fail(f"error: {error}", 2)
    except (RunError, OSError) as error:
        return fail(f"error: {error}", 1)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).splitlines()[0]
        return fail(f"error: a process is gone; {how_to_go_on(folder)} ({reason})", 1)


def how_to_go_on(folder):
    begun = folder and (folder / options.CONFIG).exists()
    return f"go on with --run-dir {folder} --resume" if begun else "nothing was written"


def fail(message, status):
    print(f"{PROGRAM}: {message}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_, **__: f"{PROGRAM}: warning: {message}\n"
    status = main()
    sys.stdout.flush()
    if status and jax.distributed.is_initialized():
        os._exit(status)  # to leave in order would wait for a process that may be gone
    sys.exit(status)
