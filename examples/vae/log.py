"""Curves for TensorBoard, written without TensorFlow."""

import contextlib
import time

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from vae.errors import RunError


class Log:
    """Means over members, an entry an epoch; a resumed run takes back what it does again."""

    def __init__(self, folder, task, state):
        self.folder, self.batches = folder / "logs", task.batches
        epoch = int(state.epoch)
        with self._to_disk():
            self.folder.mkdir(exist_ok=True)
            # Not SummaryWriter: a full disk ends its thread, and it then waits for that for ever.
            self.writer = EventsWriter(str(self.folder / "events"), f".{epoch}")
        self._write(epoch, session_log=SessionLog(status=SessionLog.START))

    def add(self, state):
        epoch = int(state.epoch)
        loss, held_out = np.asarray(state.losses)[..., epoch - 1, :].reshape(-1, 2).mean(0)
        self._write(epoch, summary=scalar("loss/train", loss))
        self._write(epoch, summary=scalar("elbo/test", -held_out))

    def _write(self, epoch, **what):
        with self._to_disk():
            self.writer.write_event(Event(wall_time=time.time(), step=epoch * self.batches, **what))

    def flush(self):
        with self._to_disk():
            self.writer.flush()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with self._to_disk():
            self.writer.close()

    @contextlib.contextmanager
    def _to_disk(self):
        try:
            yield
        except OSError as error:
            raise RunError(f"{self.folder}: cannot be written: {error.strerror}") from None
