"""What `nameshot up` keeps from one run to the next, so that the settings of `nameshot env` remain valid.

Programs and shells that have those settings can also use the next run, whose worker can fetch the local files of jobs
that were queued before.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from producer.errors import EmbeddedError

_FILE: Final = "kept.json"
_HIGHEST_PORT: Final = 65_535


def _new_secret() -> str:
    return secrets.token_urlsafe(24)


def redis_url(port: int, password: str, database: int) -> str:
    """Return the URL of a database of the embedded Valkey; it contains the password."""
    return f"redis://:{password}@127.0.0.1:{port}/{database}"


@dataclass(frozen=True, slots=True)
class Kept:
    """The port and the password of Valkey, and the key that signs the URLs of local files.

    Attributes:
        redis_port: Valkey's port in the last run; None before the first run.
    """

    redis_port: int | None = None
    redis_password: str = field(default_factory=_new_secret, repr=False)
    file_secret: str = field(default_factory=_new_secret, repr=False)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return what an earlier run kept in its data folder, or new values."""
        try:
            values = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            port, password, secret = values["redis_port"], values["redis_password"], values["file_secret"]
        except (OSError, ValueError, KeyError, TypeError):
            return cls()
        texts = all(isinstance(text, str) and len(text) >= 32 and text.isascii() for text in (password, secret))
        if not texts or not isinstance(port, int) or not 1 <= port <= _HIGHEST_PORT:
            return cls()
        return cls(port, password, secret)

    @property
    def urls(self) -> tuple[str, str] | None:
        """The URLs of broker and result backend, as ``nameshot env`` prints them; None before the first run."""
        if self.redis_port is None:
            return None
        return redis_url(self.redis_port, self.redis_password, 0), redis_url(self.redis_port, self.redis_password, 1)

    def write(self, folder: Path, redis_port: int) -> None:
        """Keep the values, with the port that Valkey uses now, in a file that only the user can read."""
        file, draft = folder / _FILE, folder / f"{_FILE}.draft"
        try:
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            draft.write_text(json.dumps(asdict(replace(self, redis_port=redis_port))) + "\n", encoding="utf-8")
            draft.replace(file)
        except OSError as error:
            raise EmbeddedError(f"{file} cannot be written: {error.strerror}.") from None
