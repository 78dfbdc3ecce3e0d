"""Packages whose names are imported when they are used, so that what needs no torch does not wait for it (PEP 562)."""

# The first module of a process, so it imports next to nothing: until it has, Ctrl-C ends in a traceback.
import importlib
import sys
from collections.abc import Callable


def exports(package: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`, which give what its `__init__.pyi` imports, and its submodules.

    The stub alone lists the names, for type checkers, editors and here. None may be that of a submodule, which would
    hide it once it is imported.

    Args:
        package: its `__name__`.
    """
    origins: dict[str, tuple[str, str]] = {}

    def listed() -> dict[str, tuple[str, str]]:
        if not origins:
            import ast
            from pathlib import Path

            stub = Path(str(sys.modules[package].__file__)).with_suffix(".pyi")
            for node in ast.parse(stub.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ImportFrom):
                    origins.update((name.asname or name.name, (str(node.module), name.name)) for name in node.names)
        return origins

    def submodule(name: str) -> object:
        whole = f"{package}.{name}"
        if not name.startswith("_"):
            try:
                return importlib.import_module(whole)
            except ModuleNotFoundError as error:
                if error.name != whole:
                    raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __getattr__(name: str) -> object:
        if name == "__all__":
            return sorted(listed())
        if name.startswith("__") or name not in listed():
            return submodule(name)
        module, own_name = origins[name]
        value = getattr(importlib.import_module(module), own_name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *listed(), "__all__"})

    return __getattr__, __dir__
