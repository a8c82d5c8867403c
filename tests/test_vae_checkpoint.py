"""Nothing is lost: kills, damage, a full disk, a second run, a loss that is not finite."""

import errno
import json
import os
import pickle
import random
import signal
import time

import jax
import numpy as np
import pytest

pytest.importorskip("tensorboardX", reason="needs the extra examples")

from vae_fixtures import (  # noqa: E402, F401
    launch_fixture,
    main_fixture,
    plain,
    plain_jax_fixture,
    same,
    task,
    tfds_folder_fixture,
    thorough,
)

from vae import checkpoint, log, train  # noqa: E402
from vae.checkpoint import Checkpoints  # noqa: E402
from vae.errors import RunError, UsageError  # noqa: E402

pytestmark = pytest.mark.usefixtures("plain_jax")


@pytest.fixture(scope="module")
def states():
    """The States after each epoch of one training."""
    with plain():
        small = task("bernoulli/concrete", "4")
        found = [train.start(small)]
        train.train(small, found[0], found.append)
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("estimator", ["categorical/quadratic", "bernoulli/concrete"])
def test_a_restored_run_ends_the_same(estimator, tmp_path):
    """Oracle: the run that was never stopped, to the bit."""
    small = task(estimator, static={"factors": 2} if "quadratic" in estimator else None)
    seen = []
    whole = train.train(small, train.start(small), seen.append)
    Checkpoints(tmp_path).save(seen[1])
    restored = Checkpoints(tmp_path).restore(train.start(small))
    assert same(restored, seen[1]) and restored.epoch == 2
    assert same(train.train(small, restored), whole)
    assert np.isfinite(whole.losses).all()


def damage(path, rng):
    """Flips one bit of a file below path, or cuts it short."""
    files = [p for p in sorted(path.rglob("*")) if p.is_file() and p.stat().st_size]
    file = rng.choice(files)
    raw = bytearray(file.read_bytes())
    at = rng.randrange(len(raw))
    if rng.random() < 0.5:
        raw[at] ^= 1 << rng.randrange(8)
    else:
        del raw[at:]
    file.write_bytes(raw)
    return file


@pytest.mark.once
@pytest.mark.parametrize("seed", [*range(5), *map(thorough, range(5, 40))])
def test_damage_is_refused(states, tmp_path, seed):
    """And the good one before it taken."""
    checkpoints = Checkpoints(tmp_path)
    for state in states[2:4]:
        checkpoints.save(state)
    damage(tmp_path / "checkpoints" / "00000003", random.Random(seed))
    with pytest.warns(UserWarning, match="00000003: refused: its files"):
        restored = checkpoints.restore(states[0])
    assert same(restored, states[2])
    # The run goes on from there, and its next checkpoint takes the place of the damaged one.
    checkpoints.save(states[3])
    assert same(Checkpoints(tmp_path).restore(states[0]), states[3])


@pytest.mark.once
def test_without_a_good_one_there_is_none(states, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(states[0]) is None
    checkpoints.save(states[1])
    (tmp_path / "checkpoints" / "00000001" / "one more file").write_text("mine")
    with pytest.warns(UserWarning, match="refused"):
        assert checkpoints.restore(states[0]) is None


def test_a_checkpoint_is_data(states, tmp_path, monkeypatch):
    """Nothing that can run code is asked to read one."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(states[1])

    def refuse(*args, **kwargs):
        raise AssertionError("code from a checkpoint")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(np, "load", refuse)
    for name in ("eval", "exec"):
        monkeypatch.setattr(f"builtins.{name}", refuse)
    assert same(checkpoints.restore(states[0]), states[1])
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(path.read_bytes().startswith(b"\x80") for path in files)


@pytest.mark.once
def test_the_two_newest_are_kept(states, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for state in states[1:]:
        checkpoints.save(state)
        checkpoints.save(state)
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert sorted(names) == ["00000003", "00000004"]


@pytest.mark.once
def test_a_full_disk_leaves_what_was_there(states, tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(states[1])

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_of_arrays(*args):
        raise ValueError("RESOURCE_EXHAUSTED: a page of text [os_error_code='28'] and more")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.orbax, "save", full_of_arrays)
        with pytest.raises(RunError, match="cannot be written: No space left on device$"):
            checkpoints.save(states[2])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="00000002: cannot be written: No space left on device"):
            checkpoints.save(states[2])
        with pytest.raises(RunError, match="No space left on device"):
            checkpoint.write_text(tmp_path / "metrics.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["00000001"]
    assert same(Checkpoints(tmp_path).restore(states[0]), states[1])


@pytest.mark.once
def test_what_is_not_finite_is_not_saved(states, tmp_path):
    state = states[1]
    params = jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(np.inf), state.params)
    with pytest.raises(RunError, match="is not finite"):
        Checkpoints(tmp_path).save(state._replace(params=params))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once
def test_checkpoints_are_far_enough_apart(states, tmp_path, monkeypatch):
    """Oracle: a clock of the test's own; at most a fiftieth of the time is spent on them."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Checkpoints, "committed", lambda self: now.__setitem__(0, now[0] + 2) or [])
    checkpoints = Checkpoints(tmp_path, every=10)
    due = []
    for second in (9, 10, 30, 100, 111, 113):
        now[0] = second
        due.append(checkpoints.due())
        if second == 10:
            checkpoints.save(states[1])  # takes 2 seconds
    assert due == [False, True, False, False, False, True]


@pytest.mark.once
def test_a_second_run_in_a_folder(main, tmp_path, capsys):
    with checkpoint.locked(tmp_path / "run"):
        with pytest.raises(UsageError, match=f"process {os.getpid()} on"):
            with checkpoint.locked(tmp_path / "run"):
                pass
        assert main("--epochs", 1, "--run-dir", tmp_path / "run") == 2
    assert f"process {os.getpid()} on" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


@pytest.mark.once
def test_a_loss_that_is_not_finite(main, tmp_path, capsys):
    """Adam's steps of 1e30 overflow at once."""
    argv = ["--epochs", 9, "--batch-size", 500, "--latent", 4, "--learning-rate", 1e30]
    assert main(*argv, "--run-dir", tmp_path / "run", "--checkpoint-every", 0) == 1
    err = capsys.readouterr().err
    good = tmp_path / "run" / "checkpoints" / "00000000"
    assert "step 2: the loss is " in err and f"the last good checkpoint is {good}" in err
    assert err.count("\n") == 1 and not (tmp_path / "run" / "metrics.json").exists()


def final(folder):
    """The metrics without the seconds, and the digests of the arrays."""
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.pop("seconds") > 0
    return metrics


@pytest.mark.thorough
def test_ctrl_c_saves_and_says_how_to_resume(main, tmp_path, monkeypatch, capsys):
    """Oracle: the run that nobody stopped."""
    argv = ["--epochs", 6, "--latent", 4, "--estimator", "bernoulli/concrete"]
    assert main(*argv, "--run-dir", tmp_path / "whole") == 0
    add = log.Log.add

    def interrupt(self, state):
        add(self, state)
        if state.epoch == 3:
            os.kill(os.getpid(), signal.SIGINT)

    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(log.Log, "add", interrupt)
        assert main(*argv, "--run-dir", folder) == 130
    assert f"go on with --run-dir {folder} --resume" in capsys.readouterr().err
    assert not (folder / "metrics.json").exists()
    assert main("--run-dir", folder, "--resume") == 0
    assert "epochs 4 to 6" in capsys.readouterr().out
    assert final(folder) == final(tmp_path / "whole")
    for name in ("samples.png", "reconstructions.png", "curves.png"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


KILLS = 6
KILLED = ["--epochs", 60, "--latent", 4, "--estimator", "bernoulli/concrete"]
KILLED += ["--checkpoint-every", 0, "--seed", 3]


def finish(process):
    _, err = process.communicate()
    assert process.returncode == 0, err


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory):
    """The folder of the run that nobody killed, and the seconds that one takes."""
    return tmp_path_factory.mktemp("unkilled") / "run", []


@pytest.mark.once
@pytest.mark.thorough
@pytest.mark.parametrize("i", range(KILLS))
def test_kill_9(i, launch, unkilled, tmp_path):
    """Oracle: the run that nobody killed. At any moment, from the first import to the last file;
    every other one close to a checkpoint."""
    whole, seconds = unkilled
    if not whole.exists():
        finish(launch(*KILLED, "--run-dir", whole))
    if i % 2 == 0 and not seconds:
        began = time.monotonic()  # of one that need not compile
        finish(launch(*KILLED, "--run-dir", tmp_path / "timed"))
        seconds.append(time.monotonic() - began)
        assert final(whole) == final(tmp_path / "timed")
    folder = tmp_path / "run"
    process = launch(*KILLED, "--run-dir", folder, "--resume")
    moment = (i + random.Random(i).random()) / KILLS
    if i % 2:
        while not (folder / "checkpoints").exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(0.3 * moment)  # to write one takes some tenths of a second
    else:
        time.sleep(moment * seconds[0])
    process.kill()
    process.communicate()
    print("killed with", [path.name for path in folder.glob("checkpoints/[.0]*")])
    finish(launch(*KILLED, "--run-dir", folder, "--resume"))
    assert final(folder) == final(whole)
    assert states_equal(*(f / "checkpoints" / "00000060" for f in (whole, folder)))


def states_equal(a, b):
    import orbax.checkpoint as ocp

    read = lambda path: ocp.PyTreeCheckpointer().restore(path / "state")
    a, b = read(a), read(b)
    del a[".seconds"], b[".seconds"]
    return same(a, b)
