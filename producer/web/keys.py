"""API keys: who may call the API, and what for. The file holds only their digests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from producer.contract.names import Queue
from producer.errors import SettingsError

logger = logging.getLogger(__name__)

#: Everybody's owner if no key is needed.
OPEN: Final = "open"
#: The queues of a key whose line says nothing else; ``high`` would let a caller overtake all others.
IMPLIED_QUEUES: Final[tuple[Queue, ...]] = ("default", "bulk")
#: The file is looked at again at most this often.
RECHECK_S: Final = 2.0
_KEY: Final = re.compile(r"nsk_([a-z0-9]{1,32})_[A-Za-z0-9_-]{43}")
_KEY_BYTES: Final = 32
_KID_BYTES: Final = 5


class KeyLine(BaseModel):
    """One line of the keys file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kid: str = Field(pattern=r"^[a-z0-9]{1,32}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    name: str = ""
    queues: tuple[Queue, ...] = IMPLIED_QUEUES
    rate: str = Field("", pattern=r"^([1-9]\d{0,8}/[1-9]\d{0,6})?$")
    max_waiting: int | None = Field(None, ge=1)
    metrics: bool = False


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many requests a key may send in a window of time."""

    requests: int
    window_s: int

    @classmethod
    def read(cls, text: str) -> RateLimit | None:
        """Parse ``600/60``; return None for an empty text."""
        return cls(*map(int, text.split("/"))) if text else None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request.

    Attributes:
        kid: the id of the key, which owns the jobs that it makes; `OPEN` without keys.
        max_open: how many jobs without an answer the key may have; None if there is no limit.
        needs_key: whether the API demands keys, so that a job without a record belongs to no caller.
        may_see_metrics: whether the key is marked for ``/metrics``.
    """

    kid: str
    queues: frozenset[str]
    rate: RateLimit | None
    max_open: int | None
    needs_key: bool
    may_see_metrics: bool = False


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for a key whose line says nothing."""

    rate: str = ""
    max_waiting: int | None = None


class KeyRing:
    """The keys of a file, which is read anew when it has changed.

    Raises:
        SettingsError: the file cannot be used. A file that becomes unusable later leaves the keys as they were.
    """

    def __init__(self, path: Path, defaults: Defaults) -> None:
        self._path = path
        self._defaults = defaults
        self._state: object = None
        self._callers: dict[str, tuple[bytes, Caller]] = {}
        self._checked_s = time.monotonic()
        self._read()

    def find(self, authorization: str | None) -> Caller | None:
        """Return whose key an Authorization header holds; None if it holds no valid one."""
        self._recheck()
        scheme, _, key = (authorization or "").partition(" ")
        found = _KEY.fullmatch(key.strip()) if scheme.lower() == "bearer" else None
        known = self._callers.get(found[1]) if found else None
        # Also compare for a key that is unknown or malformed, so that the time says nothing about the file.
        wanted = known[0] if known else bytes(32)
        matches = hmac.compare_digest(hashlib.sha256(key.strip().encode(errors="replace")).digest(), wanted)
        return known[1] if known and matches else None

    def _recheck(self) -> None:
        if time.monotonic() - self._checked_s < RECHECK_S:
            return
        self._checked_s = time.monotonic()
        try:
            self._read()
        except SettingsError as error:
            logger.error("%s The keys stay as they were.", error)

    def _read(self) -> None:
        try:
            stat = self._path.stat()
            state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if state == self._state:
                return
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"NAMESHOT_WEB_KEYS_FILE cannot be read ({type(error).__name__}).") from None
        callers = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            entry = _parsed(line, number)
            if entry.kid in callers or entry.kid == OPEN:
                raise SettingsError(f"NAMESHOT_WEB_KEYS_FILE has in line {number} a kid that is taken.")
            callers[entry.kid] = (bytes.fromhex(entry.sha256), self._caller(entry))
        self._callers, self._state = callers, state

    def _caller(self, entry: KeyLine) -> Caller:
        return Caller(
            entry.kid,
            frozenset(entry.queues),
            RateLimit.read(entry.rate or self._defaults.rate),
            entry.max_waiting or self._defaults.max_waiting,
            needs_key=True,
            may_see_metrics=entry.metrics,
        )


def everybody(defaults: Defaults) -> Caller:
    """Return the one caller of an API without keys."""
    return Caller(OPEN, frozenset(IMPLIED_QUEUES), RateLimit.read(defaults.rate), defaults.max_waiting, needs_key=False)


def _parsed(line: str, number: int) -> KeyLine:
    try:
        return KeyLine.model_validate_json(line)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "no JSON object"
        raise SettingsError(f"NAMESHOT_WEB_KEYS_FILE cannot be used: line {number} ({place}) is wrong.") from None


def new_key(name: str) -> tuple[str, Mapping[str, Any]]:
    """Return a new key, which is stored nowhere, and the line of the keys file that lets it in."""
    kid = base64.b32hexencode(secrets.token_bytes(_KID_BYTES)).decode().lower()
    key = f"nsk_{kid}_{secrets.token_urlsafe(_KEY_BYTES)}"
    return key, {"kid": kid, "sha256": hashlib.sha256(key.encode()).hexdigest(), "name": name}


def line_of(entry: Mapping[str, Any]) -> str:
    """Return an entry as a line of the keys file."""
    return json.dumps(entry, ensure_ascii=False)
