"""The registry: entries that come a file each."""

import importlib
import sys

import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.registry import Registry

PLUGIN = "from {package} import ENTRIES\n\n@ENTRIES.register({names})\nclass Entry:\n    where = __name__\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a package of modules that register names: package(a=["x", "y"]) gives its registry."""

    def make(**modules):
        name = f"plugins_{tmp_path.name}"
        folder = tmp_path / name
        folder.mkdir()
        source = f"from ristretto_cli.registry import Registry\nENTRIES = Registry('gadget', {name!r})\n"
        (folder / "__init__.py").write_text(source)
        for module, names in modules.items():
            text = PLUGIN.format(package=name, names=", ".join(map(repr, names)))
            (folder / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        return importlib.import_module(name).ENTRIES

    yield make
    for name in [name for name in sys.modules if name.startswith(f"plugins_{tmp_path.name}")]:
        del sys.modules[name]


def test_the_modules_of_the_package_are_imported_at_the_first_look_up(package):
    registry = package(one=["a"], two=["b", "c"])
    plugins = {name for name in sys.modules if name.startswith("plugins_") and "." in name}
    assert plugins == set()
    assert registry.names() == ["a", "b", "c"]
    assert registry.get("a").where.endswith(".one")


def test_an_entry_may_have_several_names(package):
    registry = package(one=["new", "old"])
    assert registry.get("new") is registry.get("old")


def test_membership_looks_up_too(package):
    registry = package(one=["a"])
    assert "a" in registry
    assert "b" not in registry


def test_an_unknown_name_is_answered_with_the_nearest_known(package):
    registry = package(one=["Convolution", "Pooling"])
    with pytest.raises(RistrettoError) as refused:
        registry.get("convolutoin")
    assert str(refused.value) == 'unknown gadget "convolutoin". Did you mean Convolution?'


def test_a_name_like_none_is_answered_with_all_known_sorted(package):
    registry = package(one=["Pooling", "Convolution"])
    with pytest.raises(RistrettoError) as refused:
        registry.get("zzz")
    assert str(refused.value) == 'unknown gadget "zzz". Known: Convolution, Pooling.'


def test_a_name_is_not_given_twice():
    registry = Registry("gadget", "nowhere")
    registry.register("a")(1)
    with pytest.raises(ValueError, match="gadget a is registered twice"):
        registry.register("b", "a")(2)


def test_the_owners_of_a_name_are_reported(package):
    registry = package(one=["a"])
    registry.names()

    class Other:
        pass

    with pytest.raises(ValueError, match=rf"gadget a is registered twice: by plugins_.*\.one and by {__name__}$"):
        registry.register("a")(Other)


def test_registered_entries_are_by_name_without_aliases(package):
    registry = package(two=["b", "c"], one=["a"])
    assert registry.registered(load=False) == {}
    assert list(registry.registered()) == ["a", "b"]
    assert registry.registered()["b"] is registry.get("c")


def test_registering_gives_the_entry_back():
    entry = object()
    assert Registry("gadget", "nowhere").register("a")(entry) is entry
