"""Parse the arguments after the ``?`` of a Redis URL; clients and workers accept the same arguments."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

#: An hour. A longer timeout is probably a mistake, such as a value in milliseconds.
MAX_SECONDS: Final = 3_600
#: Redis parses the number of a database as a signed 32-bit integer.
MAX_DATABASE: Final = 2**31 - 1
_YES: Final = ("true", "1", "yes", "t", "y", "on")
_NO: Final = ("false", "0", "no", "f", "n", "off")


def _name(value: str) -> str:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("printable ASCII without spaces")
    return value


def _database(value: str) -> int:
    # kombu also accepts a slash before the number, as in the name of an AMQP virtual host.
    number = value.strip("/") or "0"
    if not (number.isascii() and number.isdigit() and int(number) <= MAX_DATABASE):
        raise ValueError("a database number")
    return int(number)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"seconds, above 0 and at most {MAX_SECONDS:,}")
    return seconds


def _interval(value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) <= MAX_SECONDS):
        raise ValueError(f"whole seconds, at most {MAX_SECONDS:,}; 0 is off")
    return int(value)


def _protocol(value: str) -> int:
    if value not in ("2", "3"):
        raise ValueError("2 or 3")
    return int(value)


def _flag(value: str) -> bool:
    if value.lower() not in _YES + _NO:
        raise ValueError("true or false")
    return value.lower() in _YES


def _certificate_requirement(value: str) -> str:
    # Celery documents CERT_REQUIRED; redis-py accepts required.
    requirement = value.lower().removeprefix("ssl.").removeprefix("cert_")
    if requirement not in ("required", "optional", "none"):
        raise ValueError("required, optional or none")
    return requirement


def _path(value: str) -> str:
    if not os.path.exists(value):  # noqa: PTH110 - Path.exists can raise PermissionError
        raise ValueError("the path of an existing file or folder that this process can read")
    return value


def _tls_version(value: str) -> Any:
    import ssl

    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        if value in (version.name, str(version.value)):
            return version
    raise ValueError("TLSv1_2 or TLSv1_3")


def _verify_flags(value: str) -> list[Any]:
    import ssl

    names = [name.strip() for name in value.strip("[]").split(",")]
    if unknown := [name for name in names if name not in ssl.VerifyFlags.__members__]:
        raise ValueError(f"names of ssl.VerifyFlags, and {unknown[0][:40]!r} is not one")
    return [ssl.VerifyFlags[name] for name in names]


#: The arguments for every server. The timeouts apply to clients only: a worker uses fixed timeouts, because its leases
#: depend on them.
ARGUMENTS: Final[Mapping[str, Callable[[str], Any]]] = {
    "db": _database,
    "virtual_host": _database,
    "username": str,
    "password": str,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "health_check_interval": _interval,
    "protocol": _protocol,
    "client_name": _name,
}
#: The arguments for ``rediss://`` only. Both the blocking and the asyncio connection of redis-py support them.
TLS_ARGUMENTS: Final[Mapping[str, Callable[[str], Any]]] = {
    "ssl_cert_reqs": _certificate_requirement,
    "ssl_ca_certs": _path,
    "ssl_ca_path": _path,
    "ssl_ca_data": str,
    "ssl_certfile": _path,
    "ssl_keyfile": _path,
    "ssl_password": str,
    "ssl_check_hostname": _flag,
    "ssl_min_version": _tls_version,
    "ssl_ciphers": str,
    "ssl_include_verify_flags": _verify_flags,
    "ssl_exclude_verify_flags": _verify_flags,
}


class WrongArgument(ValueError):
    """One argument is invalid; the message is the end of a sentence that begins with the variable's name."""


def read_arguments(pairs: list[tuple[str, str]], *, tls: bool) -> dict[str, Any]:
    """Return the values of the arguments by redis-py's names for them.

    Raises:
        WrongArgument: an argument is unknown, is given twice or has an invalid value.
    """
    known = {**ARGUMENTS, **(TLS_ARGUMENTS if tls else {})}
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name in TLS_ARGUMENTS and not tls:
            raise WrongArgument(f"has the argument {name}, which only a rediss:// URL accepts.")
        if name not in known:
            raise WrongArgument(f"has the unknown argument {_shown(name)}; known are {', '.join(known)}.")
        target = "db" if name == "virtual_host" else name
        if target in values:
            raise WrongArgument(f"has the argument {name} twice.")
        if not text:
            raise WrongArgument(f"has the argument {name} without a value.")
        try:
            values[target] = known[name](text)
        except ValueError as error:
            raise WrongArgument(f"has an invalid argument {name}; it must be {error}.") from None
    if tls:
        # The defaults of redis-py depend on its version. A host name can be checked only in a verified certificate.
        values.setdefault("ssl_cert_reqs", "required")
        values["ssl_check_hostname"] = values["ssl_cert_reqs"] != "none" and values.get("ssl_check_hostname", True)
        _check_context(values)
    return values


def _check_context(values: Mapping[str, Any]) -> None:
    """Load certificates, key and ciphers once, so that an invalid one fails at the start, not at each connection."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    subject = "ssl_certfile and ssl_keyfile"
    try:
        if values.keys() & {"ssl_certfile", "ssl_keyfile"}:
            # With an empty password, OpenSSL fails for an encrypted key; without one, it prompts at the terminal.
            password = values.get("ssl_password", "")
            context.load_cert_chain(values.get("ssl_certfile") or "", values.get("ssl_keyfile"), password=password)
        subject = "ssl_ca_certs, ssl_ca_path or ssl_ca_data"
        if values.keys() & {"ssl_ca_certs", "ssl_ca_path", "ssl_ca_data"}:
            context.load_verify_locations(
                values.get("ssl_ca_certs"), values.get("ssl_ca_path"), values.get("ssl_ca_data")
            )
        subject = "ssl_ciphers"
        if "ssl_ciphers" in values:
            context.set_ciphers(values["ssl_ciphers"])
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise WrongArgument(f"has {subject} that OpenSSL cannot use ({reason}).") from None


def _shown(name: str) -> str:
    """Return an argument's name for a message, but hide anything except an identifier: it may be part of a password."""
    return name if name.isidentifier() and name.isascii() and len(name) <= 40 else "(not shown)"
