"""The three pictures of a run."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)
import numpy as np  # noqa: E402


def reconstructions(path, originals, decoded, shape):
    """Originals above their reconstructions, in pairs of rows."""
    columns = 10
    rows = [
        pair[i : i + columns]
        for i in range(0, len(originals), columns)
        for pair in (originals, decoded)
    ]
    labels = ["original", "decoded"] * (len(rows) // 2)
    _sheet(path, rows, shape, "Held-out digits and their reconstructions", labels)


def samples(path, decoded, shape):
    """Decoded draws from the prior."""
    rows = [decoded[i : i + 10] for i in range(0, len(decoded), 10)]
    _sheet(path, rows, shape, "Samples: the decoder's mean at draws from the prior", None)


def curves(path, curves, title):
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    epochs = np.arange(1, len(curves.train) + 1)
    axes.plot(epochs, curves.train, label="training loss")
    axes.plot(epochs, curves.test, label="held-out -ELBO")
    axes.set(xlabel="epoch", ylabel="nats per image", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _sheet(path, rows, shape, title, labels):
    height, width = shape
    figure, axes = plt.subplots(
        len(rows),
        len(rows[0]),
        figsize=(10, 1.05 * len(rows) * height / width + 0.6),
        squeeze=False,
    )
    for i, row in enumerate(rows):
        for axis, image in zip(axes[i], row, strict=True):
            axis.imshow(np.reshape(image, shape), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        if labels:
            axes[i, 0].set_ylabel(labels[i])
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
