"""Data by name: scikit-learn's digits, MNIST from its own files or TFDS, and what is missing."""

import gzip
import pathlib
import time
import urllib.error

import jax
import numpy as np
import pytest

pytest.importorskip("tensorboardX", reason="needs the extra examples")

from vae_fixtures import main_fixture, plain_jax_fixture, tfds_folder_fixture  # noqa: E402, F401

from vae import data  # noqa: E402  (after the skip)
from vae.errors import UsageError  # noqa: E402

MNIST = pathlib.Path(__file__).parents[2] / "shared" / "data" / "mnist"
FILES = ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")

pytestmark = [pytest.mark.usefixtures("plain_jax"), pytest.mark.once]


def idx(images):
    return np.array([0x803, *images.shape], ">u4").tobytes() + images.tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    """Noise as MNIST's own files: 30 images of 4x5 to train, 10 to test."""
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 5), np.uint8)
    for name, part in zip(FILES, (images[:30], images[30:]), strict=True):
        (tmp_path / name).write_bytes(gzip.compress(idx(part)))
    return tmp_path, images


def test_digits_are_scikit_learns(tfds_folder):
    """Oracle: the array itself; a pixel is 1 from 8 of 16 on."""
    from sklearn.datasets import load_digits

    levels = load_digits().images.reshape(-1, 64)
    digits = data.load("digits", tfds_folder)
    assert digits.shape == (8, 8, 1)
    assert (len(digits.train), len(digits.test)) == (1500, 297)
    for binarize, expected in (("static", levels >= 8), ("none", np.minimum(16 * levels, 255))):
        rows = [data.read(images, binarize) for images in digits[:2]]
        assert np.array_equal(np.concatenate(rows), expected)
        assert np.array_equal(data.read(digits.train, binarize, 10, 20), rows[0][10:20])


def test_idx_files(idx_folder):
    """Oracle: the arrays that were written."""
    folder, images = idx_folder
    noise = data.load("mnist", folder)
    assert noise.shape == (4, 5, 1)
    rows = [data.read(part, "dynamic") for part in noise[:2]]
    assert np.array_equal(np.concatenate(rows).reshape(images.shape), images)
    assert np.array_equal(data.read(noise.test, "static"), rows[1] >= 128)


def test_binarized_sets_stay_binary(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2, (5, 4, 4), np.uint8)
    for name in FILES:
        (tmp_path / name.removesuffix(".gz")).write_bytes(idx(bits))
    rows = data.read(data.load("binarized_mnist", tmp_path).train, "static")
    assert np.array_equal(rows.reshape(bits.shape), bits)


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-9], lambda raw: b"\0" * 99, lambda raw: gzip.compress(b"\0" * 99)]
)
def test_a_damaged_idx_file(idx_folder, damage):
    path = idx_folder[0] / FILES[1]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match=f"--data-dir: got .*{FILES[1]}, need an IDX file"):
        data.load("mnist", idx_folder[0])


def test_half_of_the_idx_files(idx_folder):
    (idx_folder[0] / FILES[0]).unlink()
    with pytest.raises(UsageError, match=f"--data-dir: .*need {FILES[0]}"):
        data.load("mnist", idx_folder[0])


def test_binarizations():
    """Oracle: frequencies of bits against intensities, within 5 standard deviations of a mean."""
    rows = np.arange(256, dtype=np.uint8)[None].repeat(2000, 0)
    drawn = [np.asarray(data.pixels(jax.random.key(s), rows, "dynamic")) for s in (0, 1)]
    assert set(np.unique(drawn[0])) == {0, 1} and not np.array_equal(*drawn)
    p = rows[0] / 255
    assert np.all(np.abs(drawn[0].mean(0) - p) <= 5 * np.sqrt(p * (1 - p) / 2000))
    np.testing.assert_allclose(data.pixels(None, rows, "none"), rows / 255, rtol=1e-6)
    assert np.array_equal(data.pixels(None, rows >= 128, "static"), rows >= 128)


with data.tfds.core.registered.skip_registration():

    class Mnist(data.tfds.core.GeneratorBasedBuilder):
        """PNG files by TFDS's name and version; it prepares them, and TFDS's own class reads."""

        VERSION = data.tfds.core.Version("3.0.1")

        def _info(self):
            features = data.tfds.features.FeaturesDict(
                {"image": data.tfds.features.Image(shape=(4, 5, 1))}
            )
            return data.tfds.core.DatasetInfo(
                builder=self, features=features, disable_shuffling=True
            )

        def _split_generators(self, download_manager):
            images = np.random.default_rng(0).integers(0, 256, (40, 4, 5, 1), np.uint8)
            rows = lambda part: ((i, {"image": image}) for i, image in enumerate(part))
            return {"train": rows(images[:30]), "test": rows(images[30:])}

        def _generate_examples(self):
            raise NotImplementedError


def test_a_prepared_tfds_set(tmp_path, monkeypatch):
    """Prepared elsewhere, where there is TensorFlow, and read here without it."""
    import io

    from PIL import Image

    def png(self, image):
        file = io.BytesIO()
        Image.fromarray(image[..., 0]).save(file, "PNG")
        return file.getvalue()

    with monkeypatch.context() as patch, data._silence():
        patch.setattr(data.tfds.features.Image, "encode_example", png)
        Mnist(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    loaded = data.load("mnist", tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (40, 20), np.uint8)
    rows = [data.read(part, "none") for part in loaded[:2]]
    assert np.array_equal(np.concatenate(rows), images) and loaded.shape == (4, 5, 1)


def test_without_tensorflow_or_network(tmp_path, monkeypatch):
    """One line with the command that mends it, within 10 seconds."""
    began = time.monotonic()
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="need TensorFlow.*pip install tensorflow.*IDX files"):
        data.load("mnist", tmp_path)
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: name)
    asked = []

    def unreachable(request, timeout):
        asked.append(timeout)
        raise urllib.error.URLError(TimeoutError("timed out"))

    monkeypatch.setattr(data.urllib.request, "urlopen", unreachable)
    with pytest.raises(
        UsageError, match="timed out.*tfds build mnist --file_format=array_record.*--data-dir"
    ) as error:
        data.load("mnist", tmp_path)
    assert "\n" not in str(error.value) and asked and max(asked) <= 5
    assert time.monotonic() - began < 10 and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not MNIST.is_dir(), reason="needs MNIST's own files")
def test_mnist(main, tmp_path):
    """A short training on real digits; oracle as in test_a_run: the best model without a latent."""
    import json

    digits = data._idx(MNIST / FILES[1])  # the folder has the test images alone
    for name, part in zip(FILES, (digits[:3000], digits[3000:3500]), strict=True):
        (tmp_path / name).write_bytes(gzip.compress(idx(part[..., 0])))
    folder = tmp_path / "run"
    argv = ["--dataset", "mnist", "--data-dir", tmp_path, "--epochs", 15, "--latent", "8"]
    assert main(*argv, "--run-dir", folder) == 0
    images = data.read(data.load("mnist", tmp_path).train, "static")
    assert images.shape == (3000, 784)
    pixels = images.mean(0, dtype=np.float64)
    used = np.maximum(np.where(images, pixels, 1 - pixels), 1e-4)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["exact_negative_elbo_test"] < -np.log(used).sum(1).mean() - 10
