"""Ask which of your labels fits an image, through a queue: ``from nameshot import Client``.

These are the public names of the package `producer`. A program that has a ``producer.py`` of its own next to it keeps
it, and has these names all the same: see `nameshot.shadowed`.
"""

# As typing's, which is not loaded for it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from producer.public import *  # noqa: F403 - its __all__ says what

    __version__: str
else:

    def __getattr__(name: str) -> object:
        """A public name, loaded when it is first used."""
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
