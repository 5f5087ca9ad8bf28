"""Finds the Python examples of a page or of docstrings, with Sybil, and runs them as a reader would."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sybil import Document, Example
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown import CodeBlockParser

#: The first line of an example that is a file.
FILE_NAME = re.compile(r"# (\w+\.py)\n")


class Examples:
    """The examples of one page, which run in order and in one namespace.

    A block of ``text`` after an example is the example's expected output. An example whose first line is ``# name.py``
    is written to a folder, from which others can import it.

    Args:
        replaced: Texts in the examples, such as addresses, and the texts that replace them in this run.
        folder: The folder for the examples that are files.

    Attributes:
        namespace: the names that the examples have defined.
        said: the output of each example that ran.
        files: the names of the written files.
    """

    def __init__(self, page: Path, *, replaced: Mapping[str, str], folder: Path) -> None:
        self._replaced, self._folder = replaced, folder
        self.said: list[str] = []
        self.files: list[str] = []
        kind = PythonDocStringDocument if page.suffix == ".py" else Document
        parsers = [CodeBlockParser("python", self._run), CodeBlockParser("text", self._compare)]
        self._document = kind.parse(str(page), *parsers)
        self.namespace: dict[str, Any] = self._document.namespace

    def run(self) -> None:
        """Run all examples; raise an example's own error, or Sybil's failure if an example prints something else."""
        for example in self._document.examples():
            example.evaluate()

    def _run(self, example: Example) -> None:
        source = str(example.parsed)
        for shown, here in self._replaced.items():
            source = source.replace(shown, here)
        if named := FILE_NAME.match(source):
            (self._folder / named[1]).write_text(source)
            self.files.append(named[1])
            return
        # Tracebacks should name the page's line. A docstring may await at top level, as in the asyncio REPL.
        lines = "\n" * (example.line + example.parsed.line_offset)
        code = compile(lines + source, example.path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            coroutine = eval(code, example.namespace)
            if coroutine is not None:
                asyncio.run(coroutine)
        self.said.append(said.getvalue())

    def _compare(self, example: Example) -> str | None:
        shown, said = str(example.parsed), self.said[-1]
        return None if said == shown else f"the page shows {shown!r}, but the example prints {said!r}"
