"""``nameshot acl``: write an ACL file for Redis or Valkey, and a settings file for each role."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from producer.cli import output
from producer.errors import NameshotError, UsageError

if TYPE_CHECKING:
    from producer.broker.access import RoleName

#: Random bytes in each password. Even with the hash from the ACL file, 256 random bits cannot be guessed.
_PASSWORD_BYTES: Final = 32
_ACL_FILE: Final = "users.acl"
#: Without these options, Redis loses accepted jobs when it restarts or runs out of memory.
_DURABLE: Final = "--appendonly yes --maxmemory-policy noeviction"


def acl(
    folder: Annotated[
        Path, typer.Argument(help="Folder for the files; created if it does not exist.", metavar="FOLDER")
    ],
    redis: Annotated[
        str, typer.Option("--redis", help="The URL at which the programs reach Redis.", metavar="URL")
    ] = "redis://localhost:6379",
) -> int:
    """Write an ACL file with the roles producer, worker, observer and web, and a settings file for each role.

    Start Redis or Valkey with --aclfile users.acl; this file holds only the passwords' hashes. Give each program the
    settings in its role's .env file, which holds a new password. The roles apply to the queues under
    NAMESHOT_QUEUE_PREFIX.
    """
    import secrets
    import shlex

    from producer.broker.access import ROLE_NAMES, acl_file
    from producer.client.configuration import configure

    scheme, address = _scheme_and_address(redis)
    prefix = configure().queue_prefix
    passwords: dict[RoleName, str] = {role: secrets.token_urlsafe(_PASSWORD_BYTES) for role in ROLE_NAMES}
    files = {_ACL_FILE: acl_file(prefix, passwords)}
    for role, password in passwords.items():
        url = f"{scheme}://{prefix}-{role}:{password}@{address}"
        lines = (f"NAMESHOT_BROKER_URL={url}/0", f"NAMESHOT_RESULT_BACKEND={url}/1", f"NAMESHOT_QUEUE_PREFIX={prefix}")
        files[f"{role}.env"] = "\n".join(lines) + "\n"
    _write(folder, files)
    output.notice(f"nameshot: wrote {', '.join(files)} into {folder}.")
    print(f"valkey-server --aclfile {shlex.quote(str(folder.absolute() / _ACL_FILE))} {_DURABLE}")
    return 0


def _scheme_and_address(redis: str) -> tuple[str, str]:
    from urllib.parse import urlsplit

    from producer.broker.urls import endpoint

    try:
        endpoint(redis, "--redis")  # the programs use this parser; its SettingsError is a ValueError
        parts = urlsplit(redis)
        scheme, port, path = parts.scheme, parts.port, parts.path.strip("/")
    except ValueError:
        scheme, port, path = "", None, ""
    if scheme not in ("redis", "rediss") or not parts.hostname or parts.username or parts.password or path:
        raise UsageError(
            "--redis must be a scheme, a host and an optional port, as in redis://localhost:6379 or rediss://r.example."
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return scheme, f"{host}:{port or 6379}"


def _write(folder: Path, files: dict[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if existing := [name for name in files if (folder / name).exists()]:
            raise NameshotError(
                f"{folder / existing[0]} already exists, and programs may use its passwords; choose another folder."
            )
        for name, text in files.items():
            # The user that runs Redis must be able to read the ACL file; the other files hold passwords.
            mode = 0o644 if name == _ACL_FILE else 0o600
            path = folder / name
            path.touch(mode=mode, exist_ok=False)
            path.chmod(mode)
            path.write_text(text)
    except OSError as error:
        raise NameshotError(f"{error.filename} cannot be written: {error.strerror}.") from None
