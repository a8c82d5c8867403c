"""One training, whatever the number of devices and of processes that share it."""

import json
import socket
import time

import numpy as np
import pytest

pytest.importorskip("tensorboardX", reason="needs the extra examples")

from vae_fixtures import (  # noqa: E402, F401
    launch_fixture,
    plain_jax_fixture,
    tfds_folder_fixture,
)

ARGV = ["--latent", 4, "--estimator", "bernoulli/concrete", "--batch-size", 96, "--epochs"]


def flags(port, count, i):
    return ["--coordinator", f"localhost:{port}", "--num-processes", count, "--process-id", i]


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def finish(*processes):
    outputs = [process.communicate(timeout=300) for process in processes]
    for process, (_, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, err
    return outputs


def checkpointed(folder):
    """The losses in the newest checkpoint."""
    import orbax.checkpoint as ocp

    newest = max((folder / "checkpoints").glob("0*"))
    return ocp.PyTreeCheckpointer().restore(newest / "state")[".losses"]


def numbers(folder):
    """Every loss and score of a finished run."""
    metrics = json.loads((folder / "metrics.json").read_text())
    scores = [value for name, value in metrics.items() if name.endswith(("_train", "_test"))]
    return np.concatenate([np.ravel(checkpointed(folder)), scores])


@pytest.fixture(scope="module")
def alone(request, tmp_path_factory):
    return tmp_path_factory.mktemp("alone") / "run"


def whole(launch, alone):
    """The numbers of the run by one process on one device."""
    if not alone.exists():
        finish(launch(*ARGV, 3, "--run-dir", alone))
    return numbers(alone)


@pytest.mark.thorough
@pytest.mark.parametrize("devices", [2, 8])
def test_devices(devices, launch, alone, plain_jax, tmp_path):
    """Oracle: one device, to 1e-5."""
    finish(launch(*ARGV, 3, "--run-dir", tmp_path / "run", devices=devices))
    np.testing.assert_allclose(numbers(tmp_path / "run"), whole(launch, alone), rtol=1e-5)


@pytest.mark.once
@pytest.mark.thorough
def test_a_batch_that_devices_cannot_share(launch, tmp_path):
    process = launch("--batch-size", 100, "--run-dir", tmp_path / "run", devices=8)
    _, err = process.communicate()
    assert process.returncode == 2 and "--batch-size: got 100, need a multiple of 8" in err
    assert not (tmp_path / "run").exists()


def slurm(port, i):
    """What SLURM says to a step of two tasks."""
    return {
        "SLURM_JOB_ID": str(port),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(i),
        "SLURM_LOCALID": str(i),
    }


def open_mpi(port, i):
    """What Open MPI's mpirun -n 2 says."""
    return {
        "OMPI_MCA_orte_hnp_uri": f"{port}.0;tcp://127.0.0.1:{port}",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(i),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(i),
    }


@pytest.mark.thorough
@pytest.mark.parametrize("cluster", [slurm, open_mpi])
def test_two_processes(cluster, launch, alone, plain_jax, tmp_path, monkeypatch):
    """Joined as a cluster says. Oracle: one process, to 1e-5. One of them writes."""
    port, processes = free_port(), []
    for i in range(2):
        for name, value in cluster(port, i).items():
            monkeypatch.setenv(name, value)
        processes.append(launch(*ARGV, 3, "--run-dir", tmp_path / "run"))
    for name in cluster(port, 0):
        monkeypatch.delenv(name)
    (out, _), (other, _) = finish(*processes)
    assert "nats" in out and "nats" not in other
    np.testing.assert_allclose(numbers(tmp_path / "run"), whole(launch, alone), rtol=1e-5)


@pytest.mark.once
@pytest.mark.thorough
@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_process_ends_the_run(victim, launch, plain_jax, tmp_path):
    """Within a minute, with an error; one process alone goes on from where the two were."""
    folder, port = tmp_path / "run", free_port()
    argv = [*ARGV, 60, "--run-dir", folder, "--checkpoint-every", 0]
    processes = [launch(*argv, *flags(port, 2, i)) for i in range(2)]
    while not list(folder.glob("checkpoints/0*")) and processes[0].poll() is None:
        time.sleep(0.02)
    processes[victim].kill()
    began = time.monotonic()
    _, err = processes[1 - victim].communicate(timeout=60)
    assert processes[1 - victim].returncode not in (0, None) and time.monotonic() - began < 60
    processes[victim].communicate()
    if victim == 0:  # jax ends the others, without a word of ours
        return
    assert f"a process is gone; go on with --run-dir {folder} --resume" in err
    reached = len(checkpointed(folder)) - np.isnan(checkpointed(folder)).any(1).sum()
    before = checkpointed(folder)[:reached]
    ((out, _),) = finish(launch(*argv, "--resume"))
    assert f"epochs {reached + 1} to 60" in out and reached >= 1
    after = checkpointed(folder)
    assert np.array_equal(after[:reached], before) and np.isfinite(after).all()
    assert np.all(np.diff(after[:, 0]) < 3)  # no step back to the start, of 40 nats
