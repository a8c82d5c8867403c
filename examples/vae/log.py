"""Curves for TensorBoard, written without TensorFlow."""

import numpy as np
from tensorboardX import SummaryWriter


class Log:
    """Means over members, an entry an epoch; a resumed run takes back what it does again."""

    def __init__(self, folder, task, state):
        self.batches = task.batches
        self.writer = SummaryWriter(
            str(folder / "logs"), purge_step=int(state.epoch) * task.batches
        )

    def add(self, state):
        epoch = int(state.epoch)
        loss, held_out = np.asarray(state.losses)[..., epoch - 1, :].reshape(-1, 2).mean(0)
        self.writer.add_scalar("loss/train", loss, epoch * self.batches)
        self.writer.add_scalar("elbo/test", -held_out, epoch * self.batches)

    def flush(self):
        self.writer.flush()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.writer.close()
