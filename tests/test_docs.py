"""The README and the docs run, name everything public, and hold today's table."""

import doctest
import importlib.util
import inspect
import pathlib
import pkgutil
import re

import jax
import jax.numpy as jnp
import pytest

import relaxjax
from relaxjax.catalog import ESTIMATORS

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODULES = [getattr(relaxjax, name) for name in relaxjax.__all__ if name[0].islower()]
MODULES = [module for module in MODULES if inspect.ismodule(module)]


def public(module):
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "CONTRIBUTING.md"])
def test_python_blocks_run(page):
    """In order, in one namespace, as a reader would; the README's step really steps."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.S)
    names = {}
    assert blocks
    for block in blocks:
        exec(block, names)
    if page == "README.md":
        logits, decoder = jnp.zeros((4, 8)), jnp.ones((8, 5))
        value, (dlogits, ddecoder) = names["step"](
            jax.random.key(0), logits, decoder, jnp.zeros((4, 5))
        )
        assert value == 20 and dlogits.shape == (4, 8) and ddecoder.shape == (8, 5)
        assert names["gradients"].shape == (16, 3)
    if page == "CONTRIBUTING.md":
        template, function = names["reinmax"], relaxjax.categorical.reinmax
        assert inspect.signature(template) == inspect.signature(function)


def test_docstrings_run():
    """The examples in them."""
    names = [info.name for info in pkgutil.walk_packages(relaxjax.__path__, "relaxjax.")]
    results = {name: doctest.testmod(importlib.import_module(name)) for name in names}
    assert all(result.failed == 0 for result in results.values()), results
    assert results["relaxjax.audit"].attempted and results["relaxjax.catalog"].attempted


@pytest.mark.once
def test_every_public_name_is_documented():
    """docs/api.md shows whole modules; what it names by hand has to be there."""
    api = (ROOT / "docs" / "api.md").read_text()
    shown = dict(re.findall(r"automodule:: (\S+)\n   :members:(.*)", api))
    for module in MODULES:
        members = shown[module.__name__]
        for name in public(module):
            value = getattr(module, name)
            if callable(value):
                assert inspect.getdoc(value), name
                in_root = name in relaxjax.__all__ and name in shown["relaxjax"]
                assert not members.strip() or name in members or in_root, name


def script(*path):
    spec = importlib.util.spec_from_file_location(
        path[-1].removesuffix(".py"), ROOT.joinpath(*path)
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.once
def test_every_row_is_in_the_table():
    table = script("docs", "table.py")
    for page in table.PAGES:
        text = page.read_text()
        assert text == table.written(page), f"stale: run docs/table.py to write {page.name}"
        assert all(f"`{name.split('/')[1]}`" in text or f"`{name}`" in text for name in ESTIMATORS)


@pytest.mark.once
def test_links_and_pictures_are_there():
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
