"""A caller's own class of strings."""


class Caseless(str):
    """A string that also equals strings with other text."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.lower() == other.lower()

    def __hash__(self) -> int:
        return hash(self.lower())
