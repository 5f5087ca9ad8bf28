"""Generate docs/client.md's tables of the client's methods and of a result from signatures and docstrings."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any, Final

from producer import AsyncClient, AsyncJob, Client, Job, Result, Score, settings
from producer.contract import image_url, job, labels
from producer.messages import submission

#: The name of a handle in the table, and its blocking and asyncio class.
HANDLES: Final = {"client": (Client, AsyncClient), "job": (Job, AsyncJob)}


def methods() -> str:
    """Return one row per public method: its call, what it returns, and its docstring's first paragraph."""
    rows = ["| call | returns | what it does |", "| --- | --- | --- |"]
    rows.append(f"| `Client{_arguments(Client)}` | `Client` | {_first_paragraph(Client)} |")
    for handle, (kind, _) in HANDLES.items():
        rows += [
            f"| `{handle}.{name}{_arguments(method)}` | {_returned(method)} | {_first_paragraph(method)} |"
            for name, method in public_methods(kind)
        ]
    return "\n".join(rows)


def awaited() -> str:
    """Return a sentence that names the methods that are not coroutines with asyncio."""
    others = [
        f"`{handle}.{name}`"
        for handle, (_, kind) in HANDLES.items()
        for name, method in public_methods(kind)
        if not inspect.iscoroutinefunction(method)
    ]
    return (
        "Arguments after `*` are optional and given by name. `AsyncClient` and `AsyncJob` have the same methods as "
        f"coroutines, except {' and '.join(others)}; read the asyncio `classify_many` with `async for`."
    )


def result() -> str:
    """Return a sentence on the fields of a `Result`, and of a `Score`."""
    properties = [name for name, value in vars(Result).items() if isinstance(value, property)]
    held = ", ".join([*_fields(Result), *(f"`{name}`" for name in properties)])
    return f"A `Result` holds {held}. A `Score` is {_lowered(_first_paragraph(Score))}"


def public_methods(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public methods of a class in the order of their definition."""
    for name, value in vars(kind).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            yield name, value


def options(method: Callable[..., Any]) -> list[str]:
    """Return the names of the options that a method takes as one ``**`` argument, unless it takes none (`Never`)."""
    hints = typing.get_type_hints(inspect.unwrap(method))
    kinds = [hints[one.name] for one in inspect.signature(method).parameters.values() if one.kind is one.VAR_KEYWORD]
    named = (typing.get_args(kind)[0] for kind in kinds if kind is not typing.Never)
    return [name for kind in named for name in typing.get_type_hints(kind)]


def arguments(method: Callable[..., Any]) -> tuple[list[str], list[str]]:
    """Return the arguments that may stand by position, with their defaults, and the names of the optional others."""
    positional, named = [], []
    for parameter in inspect.signature(method).parameters.values():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name != "self":
            default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
            positional.append(parameter.name + default)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                raise ValueError(f"{method.__qualname__}: {parameter.name} is keyword-only and has no default")
            named.append(parameter.name)
    return positional, options(method) + named


def _arguments(method: Callable[..., Any]) -> str:
    """Return the arguments in parentheses, without the defaults of keyword arguments."""
    positional, named = arguments(method)
    return f"({', '.join([*positional, *(['*'] if named else []), *named])})"


def _returned(method: Callable[..., Any]) -> str:
    annotation = inspect.signature(method).return_annotation
    if streamed := re.match(r"Generator\[(\w+),", annotation):
        return f"an iterator of `{streamed[1]}`s"
    # A vertical bar would end the table's cell, on GitHub even inside backticks.
    return "–" if annotation == "None" else " or ".join(f"`{name}`" for name in annotation.split(" | "))


def _first_paragraph(thing: object) -> str:
    text = inspect.getdoc(thing) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("``", "`")


def _fields(kind: type) -> Iterator[str]:
    """Yield each field's name, followed by the names of its own fields if it is a record itself."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        of = typing.get_args(hints[field.name])
        holds = of[0] if of and typing.get_origin(hints[field.name]) is list else hints[field.name]
        names = _own_fields(holds)
        inner = f" ({', '.join(f'`{name}`' for name in names)}{' each' if holds is not hints[field.name] else ''})"
        yield f"`{field.name}`" + (inner if names else "")


def _own_fields(kind: Any) -> tuple[str, ...]:
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    names: tuple[str, ...] = getattr(kind, "_fields", ())
    return names


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def limits() -> str:
    """Return one row per limit of a job's arguments, and of a client's."""
    days = submission.MAX_EXPIRES_IN_S / 86_400
    rows = {
        "URL": f"{image_url.MAX_URL_CHARACTERS:,} characters, once it is percent-encoded",
        "candidate labels": f"1 to {labels.MAX_LABELS:,}, each of 1 to {labels.MAX_LABEL_CHARACTERS} characters, "
        f"together {labels.MAX_LABELS_BYTES:,} bytes of UTF-8",
        "templates": f"1 to {labels.MAX_TEMPLATES}, each of at most {labels.MAX_TEMPLATE_CHARACTERS} characters",
        "prompt (a label in a template)": "as many tokens as the model reads; the worker's error names the label",
        "`top_k`": f"1 to {len(str(job.MAX_TOP_K))} digits",
        "`job_id`": "1 to 128 characters",
        "`expires_in`": f"more than 0 s, at most {days:.0f} days",
        "`retries`": f"0 to {job.MAX_RETRIES}",
        "`images_per_message`": f"1 to {job.MAX_IMAGES_PER_MESSAGE}, and at most {job.MAX_SCORES_PER_MESSAGE:,} scores "
        "in one answer",
        "`result_ttl`": f"1 to {settings.MAX_RESULT_TTL_S:,} s",
        "`max_queue`": f"1 to {settings.MAX_QUEUE:,} messages; those that have expired count until a worker takes them",
        "`queue_prefix`": "1 to 64 of the characters `A-Za-z0-9_-`",
    }
    return "\n".join(["| what | limit |", "| --- | --- |", *(f"| {what} | {limit} |" for what, limit in rows.items())])


TABLES = {"client": methods, "awaited": awaited, "result": result, "limits": limits}
