"""Work that waits until it is needed: attributes imported at first use, actions run once another module has been imported."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_actions: dict[str, list[Callable[[], object]]] = {}
"""Full names of modules that are waited for, and what then runs."""


def lazy_attributes(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose attributes are imported at first use, and its modules likewise.

    Args:
        package: `__name__` of the package.
        places: attribute to the module below `package` that defines it.

    Raises:
        AttributeError: from the function returned, for what is neither in `places` nor a module of the package.
    """

    def attribute(name: str) -> Any:
        if name not in places:
            if name.startswith("_") or importlib.util.find_spec(f"{package}.{name}") is None:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            return importlib.import_module(f"{package}.{name}")
        value = getattr(importlib.import_module(f".{places[name]}", package), name)
        vars(sys.modules[package])[name] = value
        return value

    return attribute


def when_imported(name: str, action: Callable[[], object]) -> None:
    """Run `action` as soon as the module `name` has been imported: now, if it was before. Nothing is imported for it.

    The import that is waited for sees the errors of `action`.

    Example:
        >>> when_imported("json", lambda: print("there it is"))
        there it is
    """
    if name in sys.modules:
        action()
        return
    _actions.setdefault(name, []).append(action)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing of its own: asks the finders after it, and adds the actions to the loader that they name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _actions:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            _run_after(spec.loader, fullname)
        return spec


def _run_after(loader: Any, name: str) -> None:
    """The loader stays the object it was, which readers of sources and of package data ask for; a zip file's loads other modules too."""
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        if module.__name__ != name:
            return
        vars(loader).pop("exec_module", None)
        for action in _actions.pop(name, ()):
            action()

    loader.exec_module = exec_module
