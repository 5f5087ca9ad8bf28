"""Turn each failure of Redis into a sentence: what failed, where, and what to do."""

from __future__ import annotations

import os
import ssl

import redis
from redis import exceptions

from producer.broker.servers import OF_A_CLUSTER, is_a_cluster, refused_database
from producer.broker.urls import DEFAULT_PORT, Endpoint
from producer.broker.wrong_port import speaks_plain, speaks_tls


def unavailable(error: Exception, endpoint: Endpoint) -> str:
    """Return the sentence for a failure; connects to the port once more if `needs_probe` says so."""
    where = f"Redis at {endpoint.shown}"
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    if needs_probe(error, endpoint) and (sentence := _wrong_port(endpoint)):
        return sentence
    match error:
        case exceptions.NoPermissionError():
            return (
                f"{where} does not permit this user to do that ({reason}); use the user of another role, or, if "
                "NAMESHOT_QUEUE_PREFIX or the database has changed, create new rules with `nameshot acl`."
            )
        case exceptions.AuthenticationError() | exceptions.AuthorizationError():
            return f"{where} refused the user name or password; correct them in {endpoint.variable}."
        case exceptions.OutOfMemoryError():
            return f"{where} is out of memory and accepts no new jobs; let workers catch up, or enlarge its memory."
        case exceptions.BusyLoadingError():
            return f"{where} is still loading its data; try again in a moment."
        case exceptions.ReadOnlyError():
            return f"{where} is a read-only replica; set {endpoint.variable} to the primary."
        case _ if isinstance(error, OF_A_CLUSTER):
            return is_a_cluster(endpoint)
        case redis.TimeoutError() | TimeoutError():
            tls = " and speaks TLS" if endpoint.medium == "tls" else ""
            return f"{where} did not reply in time; check that it runs{tls}, and that {endpoint.variable} is correct."
        case exceptions.InvalidResponse():
            return f"{where} is not a Redis server ({reason}); correct {endpoint.variable}."
        case exceptions.ResponseError():
            return _refusal(reason, endpoint)
        case _ if "certificate verify failed" in reason.lower():
            return (
                f"{where} has a certificate that this machine does not trust ({reason}); name its authority with "
                f"ssl_ca_certs in {endpoint.variable}, or, in a trusted network only, set ssl_cert_reqs=none."
            )
        case _ if "[ssl" in reason.lower():
            return (
                f"{where} failed the TLS handshake ({reason}); check that {endpoint.variable} names its TLS port, or "
                "write redis:// if it has none."
            )
        case _ if _closed(error):
            return (
                f"{where} closed the connection without a reply; check that {endpoint.variable} names Redis itself, "
                "or a proxy that supports its commands and can reach it."
            )
        case _:
            return f"{where} cannot be reached ({reason}); start it, or correct {endpoint.variable}.{_of_up(endpoint)}"


def may_pass(error: Exception) -> bool:
    """Return whether the server is down or busy, and has not refused the command."""
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        return False
    is_down = isinstance(error, redis.ConnectionError | redis.TimeoutError | exceptions.MasterDownError)
    return is_down or str(error).startswith(("BUSY ", "LOADING "))


def needs_probe(error: Exception, endpoint: Endpoint) -> bool:
    """Return whether `unavailable` must connect to the port to find the cause, which takes up to half a second."""
    if endpoint.medium == "tls":
        connecting = isinstance(error, redis.TimeoutError) and "connecting" in str(error).lower()
        return connecting or isinstance(error.__cause__, ssl.SSLError) or "SSL" in str(error)
    return endpoint.medium == "tcp" and (_closed(error) or isinstance(error, exceptions.InvalidResponse))


def _of_up(endpoint: Endpoint) -> str:
    """Return how to reach the running `nameshot up` if no setting names a server, so that the default was used."""
    from producer.embedded.home import running_up  # a client looks into the home directory only after a failure

    is_default = (endpoint.arguments.get("host"), endpoint.arguments.get("port")) == ("localhost", DEFAULT_PORT)
    if not is_default or endpoint.variable in os.environ or running_up() is None:
        return ""
    return ' For the Redis of the running `nameshot up`, run eval "$(nameshot env)" in this shell first.'


def _closed(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, redis.ConnectionError) and ("closed" in text or "reset by peer" in text)


def _wrong_port(endpoint: Endpoint) -> str | None:
    host, port = endpoint.arguments["host"], endpoint.arguments["port"]
    if endpoint.medium == "tls" and speaks_plain(host, port):
        return (
            f"Redis at {endpoint.shown} does not speak TLS; set {endpoint.variable} to its TLS port, "
            "or, in a trusted network only, write redis://."
        )
    if endpoint.medium == "tcp" and speaks_tls(host, port):
        return f"{endpoint.shown} expects TLS; write rediss:// in {endpoint.variable}."
    return None


def _refusal(reason: str, endpoint: Endpoint) -> str:
    where = f"Redis at {endpoint.shown}"
    lower = reason.lower()
    if sentence := refused_database(reason, endpoint):
        return sentence
    if lower.startswith(("unknown command", "unsupported command")):
        return (
            f"{where} does not know a command ({reason}); use Redis 6.2 or later, or Valkey, "
            "without a proxy that blocks commands."
        )
    if lower == "exec without multi":  # redis-py reports only the last of the errors
        return (
            f"{where} refused MULTI; use a user who may run it, create new rules with `nameshot acl`, or use Redis "
            "without a proxy that blocks commands."
        )
    if "operation against a key holding the wrong kind" in lower:
        return f"{where} refused a command ({reason}); check that no other program uses nameshot's keys."
    return f"{where} replied with an error ({reason}); check that server, or the proxy in front of it."
