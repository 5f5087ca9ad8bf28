"""Find which of your labels fits an image, through a task queue: ``from nameshot import Client``.

This module exports the public names of the package `producer`. A program with a ``producer.py`` of its own can import
them from here too: see `nameshot.shadowed`.
"""

# Type checkers treat this name like typing's. Importing typing itself would slow down the import of nameshot.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from producer.public import *  # noqa: F403 - its __all__ lists the names

    __version__: str
else:

    def __getattr__(name: str) -> object:
        """Load a public name at its first use."""
        if name == "__version__":
            from importlib.metadata import version

            return version("nameshot")
        from nameshot.shadowed import public

        if name == "__all__" or name in public().__all__:
            return getattr(public(), name)
        raise AttributeError(f"module 'nameshot' has no attribute {name!r}")

    def __dir__() -> list[str]:
        from nameshot.shadowed import public

        return sorted({*globals(), "__version__", *public().__all__})
