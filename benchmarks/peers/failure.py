"""What makes a row an error instead of figures."""

from __future__ import annotations


class PeerFailed(Exception):
    """One sentence: it cannot be installed or started, or answers wrongly."""
