"""The error that a row shows instead of figures."""

from __future__ import annotations


class PeerFailed(Exception):
    """A contender cannot be installed or started, or its answers are wrong; the message is one sentence."""
