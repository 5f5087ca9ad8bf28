"""The HTTP front: ``nameshot serve``."""
