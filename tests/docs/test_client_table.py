"""The table of the client's methods is complete, and its sentence on asyncio is true."""

import inspect
import re

from producer import AsyncClient, AsyncJob, Client, Job
from tests.docs.client_table import arguments, awaited, methods, options, public_methods, result


def public(kind: type) -> set[str]:
    return {name for name, value in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def test_the_table_contains_every_public_method() -> None:
    table = methods()

    assert set(re.findall(r"`client\.(\w+)\(", table)) == public(Client)
    assert set(re.findall(r"`job\.(\w+)\(", table)) == public(Job)


def test_the_asyncio_classes_have_the_same_methods_and_arguments() -> None:
    for blocking, other in ((Client, AsyncClient), (Job, AsyncJob)):
        assert public(blocking) == public(other)
        for name in ("__init__", *sorted(public(blocking))):
            if (blocking, name) != (Job, "__init__"):  # only clients make handles
                assert arguments(getattr(blocking, name)) == arguments(getattr(other, name)), name


def test_docstrings_name_each_option_that_is_in_no_signature() -> None:
    for kind in (Client, AsyncClient):
        for name, method in public_methods(kind):
            assert {option for option in options(method) if f"``{option}``" not in str(method.__doc__)} == set(), name
    assert options(Client.classify) == options(AsyncClient.submit) == arguments(Client.submit)[1]


def test_methods_that_are_no_coroutines_with_asyncio_are_named() -> None:
    assert "coroutines, except `client.classify_many` and `client.job`;" in awaited()
    # A plain function, so that it checks its arguments at the call.
    assert inspect.isasyncgenfunction(AsyncClient.classify_many) is False
    assert inspect.signature(AsyncClient.classify_many).return_annotation.startswith("AsyncGenerator[")


def test_the_fields_of_a_result_are_named() -> None:
    assert "`ranking` (`label`, `score` each)" in result()
    assert "`timings_ms` (`queued`, `fetch`," in result()
