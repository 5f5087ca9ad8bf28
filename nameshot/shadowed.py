"""Load the installed package `producer`, even if the program has a module of its own with that name.

A program's own folder comes first in ``sys.path``, so ``import producer`` loads the program's own module, and must
continue to do so. `nameshot` then loads the installed package under another name and redirects the import statements
inside the package to that name. An import statement calls the ``__import__`` of its module's ``__builtins__`` (Python's
language reference, section 4.2.2, "Builtins and restricted execution").
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_NAME: Final = "producer"
#: The name under which the package is loaded if the program's own module is called ``producer``.
ALIAS: Final = "nameshot_producer"


@cache
def public() -> Any:
    """Return the module with all public names."""
    if _is_installed_one(_NAME):
        return import_module(f"{_NAME}.public")
    sys.meta_path.insert(0, _Finder())
    return import_module(f"{ALIAS}.public")


def check_worker() -> None:
    """Raise `ImportError` if the program's own module hides the package `worker`, which Celery imports by its name."""
    if not _is_installed_one("worker"):
        raise ImportError(
            "a worker.py of your own hides the installed package `worker`; "
            "start `celery -A nameshot.worker worker` in another folder, or use `nameshot worker`."
        )


def _is_installed_one(name: str) -> bool:
    """Return whether importing this name loads the package that was installed together with `nameshot`."""
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None) if module else getattr(find_spec(name), "origin", None)
    return origin is not None and Path(origin).resolve().parent == _folder(name).resolve()


def _folder(name: str) -> Path:
    return Path(__file__).parents[1] / name


class _Finder(MetaPathFinder):
    """Finds the modules of the package under the name `ALIAS`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == ALIAS:
            path = [str(_folder(_NAME).parent)]
            found = PathFinder.find_spec(_NAME, path)
        elif fullname.startswith(f"{ALIAS}."):
            found = PathFinder.find_spec(fullname, path)
        else:
            return None
        if found is None or found.origin is None:
            return None
        spec = ModuleSpec(fullname, _Loader(fullname, found.origin), origin=found.origin)
        spec.submodule_search_locations = found.submodule_search_locations
        spec.has_location = True
        return spec


class _Loader(SourceFileLoader):
    """Loads a module and redirects its imports of `producer` to `ALIAS`."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
        super().exec_module(module)


def _import(name: str, *arguments: Any, **named: Any) -> ModuleType:
    first, dot, rest = name.partition(".")
    return builtins.__import__(f"{ALIAS}{dot}{rest}" if first == _NAME else name, *arguments, **named)
