"""A keys file, made with ``nameshot keys new``."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.web.serving import NAMESHOT


@dataclass
class Keys:
    """A file to which keys may be added."""

    file: Path

    def add(self, name: str, **more: Any) -> dict[str, str]:
        """Add a key; return the header that its holder sends."""
        made = subprocess.run([NAMESHOT, "keys", "new", name], capture_output=True, text=True, check=True)
        line = {**json.loads(made.stdout), **more}
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return {"Authorization": f"Bearer {made.stderr.removeprefix('key: ').strip()}"}

    def remove(self, header: dict[str, str]) -> None:
        """Remove a key."""
        kid = header["Authorization"].split("_")[1]
        lines = [line for line in self.file.read_text().splitlines() if json.loads(line)["kid"] != kid]
        self.file.write_text("".join(f"{line}\n" for line in lines))
