"""The README and the pages it links to hold: tables match the code, snippets print what they show, links resolve."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.plot import latency, throughput
from benchmarks.table import in_order
from producer.demo.gallery import files_by_name
from producer.embedded import PictureServer, WorkerProcess
from tests.docs.tables import BENCHMARK, DOCS, PAGES, README, ROOT, USED_BY_ONE, updated
from tests.valkey_server import ValkeyServer

TEXT = README.read_text()
CLIENT_PAGE = (DOCS / "client.md").read_text()
#: Where `nameshot up` serves the bundled pictures.
UP = "http://127.0.0.1:8000"
STOCK_BROKER, STOCK_BACKEND = "redis://localhost:6379/0", "redis://localhost:6379/1"


@pytest.fixture(scope="module")
def environment(valkey_of_this_run: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start what `nameshot up` starts, and yield the environment that reaches it."""
    with PictureServer(files_by_name()) as server:
        worker = WorkerProcess(
            {
                **valkey_of_this_run.settings("worker"),
                "NAMESHOT_MODEL": "bundled",
                "NAMESHOT_FETCH_ALLOW": server.fetch_allow,
                "NAMESHOT_METRICS_PORT": "0",
            },
            tmp_path_factory.mktemp("readme"),
        )
        try:
            worker.wait_until_ready()
            yield {**valkey_of_this_run.settings("producer"), "PICTURES": server.url}
        finally:
            worker.stop()


def snippets(page: str) -> list[str]:
    """Return the Python blocks of a page, in order."""
    found: list[str] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    return found


def snippet(name: str, page: str = TEXT) -> str:
    """Return the one Python block of a page that contains ``name``."""
    (found,) = (block for block in snippets(page) if name in block)
    return found


def run(code: str, environment: dict[str, str], valkey: ValkeyServer) -> str:
    code = code.replace(UP, environment["PICTURES"].rstrip("/"))
    code = code.replace(STOCK_BROKER, valkey.broker_url).replace(STOCK_BACKEND, valkey.result_backend)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_tables_and_figures_are_what_the_code_and_the_measurements_say(page: Path) -> None:
    assert updated(page) == page.read_text(), "run: python -m tests.docs.tables"


def test_a_setting_of_one_side_is_in_no_code_of_the_other() -> None:
    for name, side in USED_BY_ONE.items():
        other = ROOT / ("worker" if side == "client" else "producer")
        naming = {file.name for file in other.rglob("*.py") if name in file.read_text()}
        assert naming <= {"settings.py"}, name


def test_the_plots_show_what_was_measured() -> None:
    report = json.loads(BENCHMARK.read_text())

    assert (ROOT / "docs" / "throughput.svg").read_text() == throughput(in_order(report["rows"]))
    assert (ROOT / "docs" / "latency.svg").read_text() == latency(report["latencies"])


def test_the_first_snippet_prints_what_the_readme_shows(
    environment: dict[str, str], valkey_of_this_run: ValkeyServer
) -> None:
    shown = re.search(r"<!-- output: owl -->\n```\n(.*?)```", TEXT, flags=re.DOTALL)

    assert shown
    assert run(snippet("job.result(timeout=30)"), environment, valkey_of_this_run) == shown[1]


def test_the_web_app_snippet_submits_once_and_answers(
    environment: dict[str, str], valkey_of_this_run: ValkeyServer
) -> None:
    calls = f"""
first = upload_finished("{UP}/pictures/owl.png", "upload-1")
assert upload_finished("{UP}/pictures/owl.png", "upload-1") == first == "upload-1"
client.job("upload-1").result(timeout=30)
print(ask("upload-1")["status"], ask("never-seen")["status"])
upload_finished("{UP}/pictures/expired.png", "upload-2")
client.job("upload-2").answer(timeout=30)
print(ask("upload-2"))
send_again("{UP}/pictures/fox.png", "upload-2")
client.job("upload-2").result(timeout=30)
print(ask("upload-2")["status"])
"""

    assert run(snippet("upload_finished") + calls, environment, valkey_of_this_run).splitlines() == [
        "succeeded unknown",
        "{'status': 'failed', 'code': 'http_status', 'try_again': False}",
        "succeeded",
    ]


def test_the_async_snippet_prints_both_outcomes(environment: dict[str, str], valkey_of_this_run: ValkeyServer) -> None:
    assert sorted(run(snippet("AsyncClient", CLIENT_PAGE), environment, valkey_of_this_run).split()) == ["fox", "owl"]


def test_the_plain_celery_snippet_prints_the_car(environment: dict[str, str], valkey_of_this_run: ValkeyServer) -> None:
    assert run(snippet("send_task"), environment, valkey_of_this_run) == "car\n"


def test_there_is_no_snippet_that_no_test_runs() -> None:
    assert [len(snippets(page)) for page in (TEXT, CLIENT_PAGE)] == [3, 1]


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "benchmarks/README.md",
        "checkpoint/README.md",
        *(f"docs/{page.name}" for page in sorted(DOCS.glob("*.md"))),
    ],
)
def test_every_local_link_leads_somewhere(document: str) -> None:
    file = ROOT / document
    for name, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^):]+))?\)", file.read_text()):
        target = file.parent / name if name else file
        assert target.exists(), f"{document}: {name}"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{document}: {name}#{anchor}"


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_demo_pictures_of_the_readme_are_bundled() -> None:
    for name in re.findall(r"/pictures/([\w.]+\.(?:png|jpg|webp))", TEXT):
        assert name in files_by_name(), name


def test_the_makefile_targets_of_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", Path(ROOT / "Makefile").read_text(), flags=re.MULTILINE))

    assert set(re.findall(r"`make ([a-z]+)`", TEXT + Path(ROOT / "CONTRIBUTING.md").read_text())) <= targets
