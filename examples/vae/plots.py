"""The pictures of a run."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)
import numpy as np  # noqa: E402

COLUMNS = 10


def reconstructions(path, pictures):
    """Originals above their reconstructions, in pairs of rows."""
    rows = [
        (label, images[i : i + COLUMNS])
        for i in range(0, len(pictures.originals), COLUMNS)
        for label, images in (("original", pictures.originals), ("decoded", pictures.decoded))
    ]
    _sheet(path, rows, pictures.shape, "Held-out images and their reconstructions")


def samples(path, pictures):
    """Decoded draws from the prior."""
    decoded = pictures.samples
    rows = [("", decoded[i : i + COLUMNS]) for i in range(0, len(decoded), COLUMNS)]
    _sheet(path, rows, pictures.shape, "Samples: the decoder's mean at draws from the prior")


def estimators(path, pictures):
    """{name: pictures}, a row for each: reconstructions of the originals on top, then samples."""
    first, half = next(iter(pictures.values())), COLUMNS // 2
    rows = [("original", first.originals[:half])]
    rows += [(name, [*p.decoded[:half], *p.samples[:half]]) for name, p in pictures.items()]
    _sheet(path, rows, first.shape, "Reconstructions (left) and samples (right)", label_size=7)


def curves(path, lines, title):
    """lines: label -> (..., epochs); over the leading axes, the mean with the range."""
    columns = -(-len(lines) // 30) if len(lines) > 10 else 0  # of a legend beside the axes
    figure, axes = plt.subplots(figsize=(7 + 2.5 * columns, 4.5), layout="constrained")
    colors = plt.colormaps["viridis" if len(lines) > 10 else "tab10"]
    for i, (label, losses) in enumerate(lines.items()):
        losses = np.reshape(losses, (-1, np.shape(losses)[-1]))
        epochs = np.arange(1, losses.shape[1] + 1)
        color = colors(i / (len(lines) - 1)) if len(lines) > 10 else colors(i)
        axes.plot(epochs, losses.mean(0), label=label, color=color)
        if len(losses) > 1:
            axes.fill_between(epochs, losses.min(0), losses.max(0), color=color, alpha=0.2)
    axes.set(xlabel="epoch", ylabel="nats per image", title=title)
    axes.grid(alpha=0.3)
    if columns:
        figure.legend(loc="outside right upper", ncols=columns, fontsize=6)
    else:
        axes.legend(fontsize="x-small" if len(lines) > 6 else "medium")
    _save(figure, path)


def sweep(path, name, values, scores, ylabel, title):
    """scores: (seeds, values): the mean over the seeds, with its range and each point."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.plot(values, scores.mean(0))
    axes.fill_between(values, scores.min(0), scores.max(0), alpha=0.2)
    axes.plot(values, scores.T, ".", color="black", markersize=3)
    if np.all(values > 0):
        axes.set_xscale("log")
    axes.set(xlabel=name, ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    _save(figure, path)


def _sheet(path, rows, shape, title, label_size=10):
    height, width, channels = shape
    gap, columns = max(1, height // 8), max(len(images) for _, images in rows)
    down, right = height + gap, width + gap
    # One array, since matplotlib takes seconds for axes of sixty images.
    sheet = np.full((down * len(rows) + gap, right * columns + gap, channels), 0.85, np.float32)
    for i, (_, images) in enumerate(rows):
        for j, image in enumerate(np.reshape(images, (-1, *shape))):
            place = np.s_[down * i + gap : down * (i + 1), right * j + gap : right * (j + 1)]
            sheet[place] = 1 - image if channels == 1 else image  # strokes are ink
    size = 10, 9 * len(sheet) / sheet.shape[1] + 0.6
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    middles = down * np.arange(len(rows)) + gap + height / 2
    axes.set_yticks(middles, [label for label, _ in rows], fontsize=label_size)
    axes.set(xticks=[], frame_on=False, title=title)
    axes.tick_params(length=0)
    _save(figure, path)


def _save(figure, path):
    figure.savefig(path, dpi=120)
    plt.close(figure)
