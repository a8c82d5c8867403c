"""The installed package: typed, one version, and jax its only need."""

import importlib.metadata
import importlib.resources
import pathlib
import re

import pytest

import relaxjax


def test_version_is_that_of_the_metadata():
    assert importlib.metadata.version("relaxjax") == relaxjax.__version__


@pytest.mark.once
def test_version_is_that_of_the_citation():
    citation = pathlib.Path(__file__).resolve().parents[1] / "CITATION.cff"
    assert re.findall(r"^version: (.+)$", citation.read_text(), re.M) == [relaxjax.__version__]


def test_is_typed():
    assert (importlib.resources.files("relaxjax") / "py.typed").is_file()


def test_jax_alone_is_required():
    required = [r for r in importlib.metadata.requires("relaxjax") if "extra ==" not in r]
    assert [re.match(r"[\w.-]+", r)[0] for r in required] == ["jax"]
