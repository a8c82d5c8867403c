"""Binarized images by TFDS name; scikit-learn's digits are built in, without TensorFlow."""

import contextlib
import difflib
import importlib.util
import io
import logging
import warnings
from typing import NamedTuple

import numpy as np

from vae.errors import UsageError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies warn of their own deprecations
    import tensorflow_datasets as tfds
    from sklearn.datasets import load_digits

IMAGE_SETS = ("binarized_mnist", "emnist", "fashion_mnist", "kmnist", "mnist", "omniglot")


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
    """Binary images, a row each, in float32."""

    train: np.ndarray
    test: np.ndarray
    shape: tuple[int, int]


def load(name, data_dir=None):
    """The training and test images of a TFDS dataset; a pixel is 1 from half intensity on.

    data_dir is TFDS's own folder unless given. Raises UsageError where the name is unknown or the
    dataset cannot be prepared here.
    """
    builder = _builder(name, data_dir)
    if "image" not in builder.info.features or not {"train", "test"} <= set(builder.info.splits):
        raise UsageError(f"--dataset: got {name}, need images with the splits train and test")
    splits = {}
    for split in ("train", "test"):
        images = np.stack([row["image"] for row in builder.as_data_source(split=split)])
        if images.ndim != 4 or images.shape[-1] != 1:
            raise UsageError(f"--dataset: got {name}, need gray images of one size")
        splits[split] = (images >= 128).reshape(len(images), -1).astype(np.float32)
    return Dataset(**splits, shape=images.shape[1:3])


def _builder(name, data_dir):
    options = {"data_dir": data_dir, "file_format": "array_record"}
    with _silence():
        if name == "digits":
            builder = Digits(**options)
        elif name in tfds.list_builders(with_community_datasets=False):
            builder = tfds.builder(name, try_gcs=False, **options)
        else:
            near = difflib.get_close_matches(name, ("digits", *IMAGE_SETS), n=3, cutoff=0.5)
            need = ", ".join(near or ("digits", *IMAGE_SETS))
            raise UsageError(f"--dataset: got {name!r}, need the TFDS name of an image set: {need}")
        if name != "digits" and not builder.data_path.exists():
            if importlib.util.find_spec("tensorflow") is None:
                raise UsageError(
                    f"--dataset: got {name}, which is not prepared in {builder.data_path}; that "
                    f"needs TensorFlow: pip install tensorflow, then tfds build {name}"
                )
        try:
            builder.download_and_prepare()
        except OSError as error:
            raise UsageError(
                f"--dataset: got {name}, need to prepare it in {builder.data_path}: {error}"
            ) from None
    return builder


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
