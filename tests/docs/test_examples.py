"""Every Python example of the pages and docstrings runs, against a real Valkey and a real worker."""

import gc
from collections.abc import Mapping
from pathlib import Path

import pytest

from producer import Client
from tests.docs.examples import Examples
from tests.docs.tables import DOCS, README, ROOT

PACKAGES = ("nameshot", "producer", "worker")


def with_examples() -> list[Path]:
    """Return every page and every source file with Python examples."""
    pages = [*ROOT.glob("*.md"), *DOCS.glob("*.md"), ROOT / "benchmarks" / "README.md"]
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    return sorted(file for file in (*pages, *files) if "```python" in file.read_text())


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", with_examples(), ids=relative)
def test_every_example_runs_and_prints_the_output_that_the_page_shows(
    file: Path, replaced: Mapping[str, str], tmp_path: Path
) -> None:
    examples = Examples(file, replaced=replaced, folder=tmp_path)

    examples.run()

    assert len(examples.said) + len(examples.files) == file.read_text().count("```python")
    if file.suffix == ".py":
        assert examples.said == ["owl\n"]
    examples.namespace.clear()
    gc.collect()  # clients that an example left open must not end during another test


def test_all_files_with_examples_are_found() -> None:
    assert {relative(file) for file in with_examples()} >= {
        *("README.md", "docs/client.md", "docs/scaling.md", "docs/web-apps.md"),
        *("producer/__init__.py", "producer/client/aio.py", "producer/client/blocking.py"),
    }


def test_the_asyncio_example_prints_both_pictures(replaced: Mapping[str, str], tmp_path: Path) -> None:
    examples = Examples(DOCS / "client.md", replaced=replaced, folder=tmp_path)

    examples.run()

    assert [sorted(said.split()) for said in examples.said] == [["fox", "owl"]]


def test_the_functions_of_the_readme_submit_an_image_once_read_its_answer_and_submit_it_again(
    replaced: Mapping[str, str], pictures: str, tmp_path: Path
) -> None:
    examples = Examples(README, replaced=replaced, folder=tmp_path)
    examples.run()
    submit, ask, send_again = (examples.namespace[name] for name in ("upload_finished", "ask", "send_again"))

    with Client() as client:
        assert submit(f"{pictures}/pictures/owl.png", "readme-upload") == "readme-upload"
        assert submit(f"{pictures}/pictures/owl.png", "readme-upload") == "readme-upload"
        client.job("readme-upload").result(timeout=30)
        assert ask("readme-upload")["status"] == "succeeded"
        assert ask("never-seen")["status"] == "unknown"
        submit(f"{pictures}/pictures/expired.png", "upload-2")
        client.job("upload-2").answer(timeout=30)
        assert ask("upload-2") == {"status": "failed", "code": "http_status", "try_again": False}
        send_again(f"{pictures}/pictures/fox.png", "upload-2")
        client.job("upload-2").result(timeout=30)
        assert ask("upload-2")["status"] == "succeeded"


def test_the_traceback_of_an_example_names_the_line_of_its_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Owls\n\n```python\nowl = 1\nowl / 0\n```\n")

    with pytest.raises(ZeroDivisionError) as raised:
        Examples(page, replaced={}, folder=tmp_path).run()

    assert (str(raised.traceback[-1].path), raised.traceback[-1].lineno + 1) == (str(page), 5)


def test_an_example_that_prints_something_else_than_the_page_shows_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint('owl')\n```\n\n```text\nfox\n```\n")

    with pytest.raises(Exception, match="the page shows 'fox"):
        Examples(page, replaced={}, folder=tmp_path).run()
