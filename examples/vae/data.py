"""Images by TFDS name, read by Grain; scikit-learn's digits are built in, without TensorFlow."""

import contextlib
import difflib
import functools
import gzip
import importlib.util
import io
import logging
import pathlib
import re
import threading
import urllib.error
import urllib.request
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae.errors import UsageError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies warn of their own deprecations
    import grain
    import tensorflow_datasets as tfds

IMAGE_SETS = ("binarized_mnist", "emnist", "fashion_mnist", "kmnist", "mnist", "omniglot")
IDX_SETS = ("mnist", "fashion_mnist", "kmnist")  # in IDX files of one naming
BINARIZATIONS = ("static", "dynamic", "none")
IDX = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
BATCH, READING = 500, grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)
FORMAT = "array_record"  # which needs no TensorFlow to be read
PATIENCE = 5  # seconds, for the server of a download to answer


class Digits(tfds.core.GeneratorBasedBuilder):
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels: the first 1,500 train."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        # Tensor and not Image, which needs TensorFlow to encode.
        image = tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8)
        label = tfds.features.ClassLabel(num_classes=10)
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, download_manager):
        from sklearn.datasets import load_digits  # slow to import, and needed once

        digits = load_digits()
        # Their 17 levels, spread over 8 bits.
        images = np.minimum(16 * digits.images[..., None], 255).astype(np.uint8)
        labels = digits.target
        return {
            "train": self._generate_examples(images[:1500], labels[:1500]),
            "test": self._generate_examples(images[1500:], labels[1500:]),
        }

    def _generate_examples(self, images, labels):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {"image": image, "label": int(label)}


class Dataset(NamedTuple):
    """Two Grain datasets of images, and the shape of one image."""

    train: grain.MapDataset
    test: grain.MapDataset
    shape: tuple[int, ...]


def load(name, data_dir=None):
    """The training and test images of a TFDS dataset.

    data_dir is TFDS's own folder unless given; it may also hold the original IDX files of MNIST or
    a set like it. Raises UsageError where the name is unknown or the dataset cannot be had here.
    """
    sources = _idx_sources(data_dir) if name != "digits" else None
    if sources is None:
        builder = _builder(name, data_dir)
        if "image" not in builder.info.features or not set(IDX) <= set(builder.info.splits):
            raise UsageError(f"--dataset: got {name}, need images with the splits train and test")
        feature = builder.info.features["image"]
        if None in feature.shape or feature.np_dtype != np.uint8:
            raise UsageError(f"--dataset: got {name}, need 8-bit images of one size")
        sources = {split: _source(name, builder, split) for split in IDX}
    images = {
        split: grain.MapDataset.source(source).map(lambda row: row["image"])
        for split, source in sources.items()
    }
    return Dataset(**images, shape=images["train"][0].shape)


def read(images, binarize, start=0, stop=None):
    """The images from start to stop in uint8, a row each: 0 and 1 if static, else up to 255."""
    # By batches: Grain's threads cost more than an image does.
    batches = images[start:stop].batch(BATCH).to_iter_dataset(READING)
    rows = np.concatenate([batch.reshape(len(batch), -1) for batch in batches])
    if rows.max() <= 1:  # a binarized set
        rows = rows * np.uint8(255)
    return (rows >= 128).astype(np.uint8) if binarize == "static" else rows


def pixels(key, rows, binarize):
    """What the model sees of rows: bits, drawn anew with every key if dynamic, or intensities."""
    if binarize == "static":
        return rows.astype(jnp.float32)
    intensities = rows.astype(jnp.float32) / 255
    if binarize == "none":
        return intensities
    return jax.random.bernoulli(key, intensities).astype(jnp.float32)


def _idx_sources(data_dir):
    """Both splits from the original IDX files, or None where the folder has none."""
    found = {
        split: path
        for split, stem in IDX.items()
        for path in (pathlib.Path(data_dir or "", stem + end) for end in (".gz", ""))
        if data_dir and path.exists()
    }
    if not found:
        return None
    for split, stem in IDX.items():
        if split not in found:
            raise UsageError(f"--data-dir: got {data_dir}, need {stem}.gz beside its other file")
    return {split: [{"image": image} for image in _idx(path)] for split, path in found.items()}


def _idx(path):
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        magic, *shape = np.frombuffer(raw[:16], ">u4").tolist()
        if magic != 0x803:
            raise ValueError("no IDX file of images")
        return np.frombuffer(raw, np.uint8, offset=16).reshape(*shape, 1)
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"--data-dir: got {path}, need an IDX file of images ({error})") from None


def _builder(name, data_dir):
    make = Digits
    with _silence():
        if name != "digits":
            if re.split("[/:]", name)[0] not in tfds.list_builders(with_community_datasets=False):
                near = difflib.get_close_matches(name, ("digits", *IMAGE_SETS), n=3, cutoff=0.5)
                need = (
                    f"the TFDS name of an image set: {', '.join(near or ('digits', *IMAGE_SETS))}"
                )
                raise UsageError(f"--dataset: got {name!r}, need {need}")
            make = functools.partial(tfds.builder, name, try_gcs=False)
        try:
            builder = make(data_dir=data_dir)
            if not builder.data_path.exists():
                if name != "digits":
                    _check_preparable(name, builder)
                builder = make(data_dir=data_dir, file_format=FORMAT)
                builder.download_and_prepare()
        except UsageError:
            raise
        except Exception as error:  # each set has errors of its own
            raise UsageError(f"--dataset: got {name}, need to prepare it: {_line(error)}") from None
    return builder


def _source(name, builder, split):
    try:
        return builder.as_data_source(split=split)
    except NotImplementedError:
        raise UsageError(
            f"--dataset: got {name}, which {builder.data_path} holds as "
            f"{builder.info.file_format.value}, need {FORMAT}: give another folder as --data-dir"
        ) from None


def _check_preparable(name, builder):
    """UsageError at once, where TFDS would fail late or try for minutes."""
    missing = f"--dataset: got {name}, which is not prepared in {builder.data_path}"
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(
            f"{missing}; need TensorFlow to prepare it: pip install tensorflow{_by_hand(name)}"
        )
    for url in list(builder.url_infos or ())[:1]:
        error = _no_answer(url)
        if error is not None:
            raise UsageError(
                f"{missing}, need a network ({url} does not answer: {_line(error)}): run "
                f"tfds build {name} --file_format={FORMAT} where there is one, and give its "
                f"folder as --data-dir{_by_hand(name)}"
            )


def _by_hand(name):
    return ", or give a folder with its IDX files as --data-dir" if name in IDX_SETS else ""


def _no_answer(url):
    """Why the server does not answer, or None."""
    found = [TimeoutError("timed out")]

    def ask():
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE)
        except urllib.error.HTTPError:
            pass  # there is a network; what is wrong with the address is TFDS's to say
        except OSError as error:
            found[0] = getattr(error, "reason", error)
            return
        found[0] = None

    # In a thread, since no timeout ends the search for a name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE + 1)
    return found[0]


def _line(error):
    """The first line of an error; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextlib.contextmanager
def _silence():
    """TFDS reports every step of a preparation that takes a second; errors are raised anyway."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    tfds.disable_progress_bar()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
