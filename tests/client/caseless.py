"""A caller's own kind of string."""


class Caseless(str):
    """Equal to what it does not say."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.lower() == other.lower()

    def __hash__(self) -> int:
        return hash(self.lower())
