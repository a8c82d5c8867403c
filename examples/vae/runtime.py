"""Devices and processes: rows of images lie sharded over all devices, everything else on each."""

import contextlib
import os
import signal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vae.errors import UsageError

HEARTBEAT = 20  # seconds without a sign of life after which a process counts as dead
ROWS = PartitionSpec("rows")


def initialize(coordinator, num_processes, process_id):
    """Join the other processes, by flags or as the cluster says; nothing where there are none."""
    flags = (coordinator, num_processes, process_id)
    if flags == (None, None, None) and not _in_cluster():
        return
    if None in flags and any(flag is not None for flag in flags):
        raise UsageError(
            "--coordinator, --num-processes, --process-id: got some of them, need all or none"
        )
    try:
        jax.distributed.initialize(
            *flags,
            initialization_timeout=60,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"--coordinator: got {coordinator}, need all processes ({reason})"
        ) from None


def _in_cluster():
    """Whether jax.distributed would find several processes on SLURM, Open MPI or a TPU pod."""
    several = lambda name: int(os.environ.get(name) or 1) > 1
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    # SLURM_STEP_...: a shell inside an allocation is one process, whatever the allocation has.
    return several("SLURM_STEP_NUM_TASKS") or several("OMPI_COMM_WORLD_SIZE") or "," in hosts


def is_writer():
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


@contextlib.contextmanager
def writer_first():
    """The others wait until the writer has been here: what it prepares is there for them."""
    if not is_writer():
        multihost_utils.sync_global_devices("writer first")
    yield
    if is_writer() and jax.process_count() > 1:
        multihost_utils.sync_global_devices("writer first")


def mesh():
    return Mesh(np.array(jax.devices()), ("rows",))


def shard(mesh, read, length):
    """Rows 0 to length as one array over all devices, padded to as many on each; read(start, stop)
    is asked for this process's own."""
    each = -(-length // mesh.size)
    sharding = NamedSharding(mesh, ROWS)
    mine = [i for i, d in enumerate(mesh.devices) if d.process_index == jax.process_index()]
    start, stop = (min(edge, length) for edge in (mine[0] * each, (mine[-1] + 1) * each))
    # One row for its width, where the padding is all that this process has.
    rows = read(start, stop) if start < stop else read(0, 1)[:0]
    padding = np.zeros((each * len(mine) - len(rows), rows.shape[1]), rows.dtype)
    rows = np.concatenate([rows, padding])
    shape = (each * mesh.size, rows.shape[1])
    return jax.make_array_from_process_local_data(sharding, rows, shape)


def replicate(mesh, tree):
    """A tree of arrays, which every process has, on every device."""
    sharding = NamedSharding(mesh, PartitionSpec())
    # Not device_put: among processes it asks whether all have the same, and NaN is never the same.
    put = lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x), np.shape(x))
    return jax.tree.map(put, tree)


def from_writer(tree):
    """The writer's tree, in every process."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


@contextlib.contextmanager
def stop_requests():
    """A list, not empty once Ctrl-C or SIGTERM has asked to stop; a second one does not ask."""
    asked = []

    def ask(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
