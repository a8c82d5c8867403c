"""A run's folder: one run in it at a time, and checkpoints that are whole or refused.

A checkpoint is a folder, named by its epoch, of what Orbax wrote and the digest of every file of it
in SHA256SUMS, which `sha256sum -c` reads too. It gets its name when all of it is on the disk, so
that a kill leaves none half written; one whose files are not those of its digests is refused. It
holds arrays and JSON: to read one runs no code from it.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import socket
import tempfile
import time
import warnings

import jax
import numpy as np

from vae.errors import RunError, UsageError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies warn of their own deprecations
    import orbax.checkpoint as ocp

SUMS = "SHA256SUMS"
KEEP = 2  # the newest, and one to fall back on
ROOM = 2**20  # bytes, for what is beside the arrays
COST = 0.02  # of a run's time that checkpoints may take


class Checkpoints:
    """Those of one run folder."""

    def __init__(self, run_folder, every=0.0):
        self.folder = run_folder.absolute() / "checkpoints"  # Orbax refuses a relative one
        self.every, self.took, self.last = every, 0.0, time.monotonic()
        self.newest = None  # the epoch of what is saved or restored
        # One process writes, and the others do not wait for it.
        alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        self.orbax = ocp.Checkpointer(handler, multiprocessing_options=alone)

    def due(self):
        """Whether the last is `every` seconds old, and old enough to have paid for another."""
        return time.monotonic() - self.last >= max(self.every, self.took / COST)

    def save(self, state):
        """RunError where the disk does not take it; what was there before is untouched."""
        began = time.monotonic()
        if self.newest == int(state.epoch):
            return
        leaves = _leaves(jax.tree.map(np.asarray, state))
        bad = [name for name, x in leaves.items() if name != ".losses" and not _finite(x)]
        if bad:
            raise RunError(f"epoch {state.epoch}: {bad[0].lstrip('.')} is not finite")
        path = self.folder / f"{int(state.epoch):08}"
        try:
            self.folder.mkdir(exist_ok=True)
            # Asked first: a full disk ends Orbax's threads, each with a page of traceback.
            size = sum(x.nbytes for x in leaves.values())
            if shutil.disk_usage(self.folder).free < size + ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with _staging(self.folder) as staging:
                self.orbax.save(staging / "state", leaves)
                (staging / SUMS).write_text(digests(staging))
                _sync(staging)
                if path.exists():  # damaged: a whole one would have been resumed from
                    shutil.rmtree(path)
                staging.rename(path)
                _sync_one(self.folder)
            for old in self.committed()[KEEP:]:
                shutil.rmtree(old)
        except Exception as error:  # TensorStore reports a full disk by a ValueError
            raise RunError(f"{path}: cannot be written: {_reason(error)}") from None
        self.last = time.monotonic()
        self.took = self.last - began
        self.newest = int(state.epoch)

    def committed(self):
        """The paths of all, the newest first."""
        names = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted((path for path in names if path.name.isdigit()), reverse=True)

    def restore(self, like):
        """The newest State that is whole, in NumPy, or None; warns of each that is not."""
        for path in self.committed():
            try:
                if (path / SUMS).read_text() != digests(path):
                    raise ValueError("its files are not those of its digests")
                expected = _leaves(like)
                arrays = ocp.RestoreArgs(restore_type=np.ndarray)
                args = ocp.args.PyTreeRestore(
                    item=expected, restore_args={name: arrays for name in expected}
                )
                leaves = self.orbax.restore(path / "state", args=args)
            except (OSError, ValueError) as error:
                warnings.warn(f"{path}: refused: {str(error).splitlines()[0]}", stacklevel=2)
                continue
            if any(x.shape != leaves[name].shape for name, x in expected.items()):
                raise RunError(f"{path}: holds another model, need the program that wrote it")
            leaves = [leaves[name] for name in expected]
            state = jax.tree.unflatten(jax.tree.structure(like), leaves)
            self.newest = int(state.epoch)
            return state
        return None


def digests(folder):
    """SHA256SUMS of every other file in folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n"
        for path in files
    )


def _leaves(tree):
    """A flat dict by path: a checkpoint names no class of this program."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in flat}


def _reason(error):
    """Why the disk did not take it, in a few words."""
    code = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore's, within a page of text
    number = error.errno if isinstance(error, OSError) else code and int(code[1])
    return os.strerror(number) if number else str(error).splitlines()[0]


def _finite(x):
    return not np.issubdtype(x.dtype, np.floating) or bool(np.all(np.isfinite(x)))


def _sync(folder):
    for path in (*folder.rglob("*"), folder):
        _sync_one(path)


def _sync_one(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _staging(folder):
    for left in folder.glob(".staging-*"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    path = pathlib.Path(tempfile.mkdtemp(prefix=".staging-", dir=folder))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def write_text(path, text):
    """All of it or nothing."""
    staging = path.with_name(f".{path.name}.tmp")
    try:
        with staging.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    except OSError as error:
        staging.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def locked(folder):
    """The folder, made where it is not there, with no other run in it; a kill frees it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise UsageError(
            f"--run-dir: got {folder}, need a folder that can be written ({error.strerror})"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise UsageError(
                f"--run-dir: got {folder}, in which {owner} runs, need another folder"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield  # and never unlink it: who has it open would lock a file that is not there
