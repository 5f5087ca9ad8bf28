"""The structure of the code: which module imports which, how long a file is, and what an import costs."""

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("producer", "worker")
#: A file holds one idea. Files of tests may be longer, because they are lists of independent tests.
MAX_LINES = {"tests": 340}
MAX_LINES_OF_CODE = 270
#: Names that say nothing about a file's contents.
NAMELESS = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
#: A reader takes in nine names at once.
MAX_FILES_AT_THE_TOP_OF_WORKER = 9
#: Folders of tests that belong to no single subpackage, and what they are about.
ACROSS_SUBPACKAGES = {
    "acceptance": "a whole worker, as plain Celery clients see it",
    "access": "the roles of a shared Redis, for every program",
    "benchmarks": "the programs that measure",
    "chaos": "the null worker, and runs in which everything fails at once",
    "dependencies": "which versions are installed, and what a client does without",
    "docker": "the image and the services of compose",
    "docs": "the documents say what the code does",
    "fundamentals": "what every user does, to be read as a manual",
    "fuzz": "random and damaged inputs",
    "images": "untrusted image files, from their bytes to pixels",
    "secrets": "secrets that no program may write to a log or a key",
    "version_before": "this and the previous version together on one Redis",
}
#: A dotted name of the packages in quotes or backticks: Celery imports by such strings, and comments contain them.
OURS = re.compile(r"(?<=[\"'`~])(?:worker|producer)(?:\.[A-Za-z_]+)+(?::[A-Za-z_]+)?(?=[\"'`])")
CELERYS = {"celery", "kombu", "billiard", "vine"}
#: Data files whose names look like modules.
NO_MODULES = {"worker.ready", "worker.log"}


def sources(*folders: str) -> list[Path]:
    """Return the source files of folders, without hidden folders such as the virtual environments of benchmarks."""
    found = [file.relative_to(ROOT) for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return [ROOT / file for file in found if not any(part.startswith(".") for part in file.parts)]


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def named_by(node: ast.AST) -> Iterator[str]:
    """Yield the modules, and the names in them, of an import statement; nothing if the node is something else."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_at_start(file: Path) -> Iterator[str]:
    """Yield the modules that this file imports when it is loaded: not those inside functions or under TYPE_CHECKING."""
    for node in ast.parse(file.read_text()).body:
        yield from named_by(node)


def imports_outside_functions(file: Path) -> Iterator[str]:
    """Yield the modules that this file imports outside functions, including those under TYPE_CHECKING."""
    found: list[ast.AST] = [ast.parse(file.read_text())]
    for node in found:
        yield from named_by(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found += ast.iter_child_nodes(node)


def imported(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports anywhere, by a statement or by calling ``import_module``."""
    for node in ast.walk(ast.parse(file.read_text())):
        yield from named_by(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (ast.unparse(argument).strip("'") for argument in node.args)


def constants(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def roots_of(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(file)}


def named_in_text(file: Path) -> set[str]:
    """Return the dotted names of the packages in strings and comments: ``worker.fetch.pool:Name`` or with a dot."""
    return {found[0] for found in OURS.finditer(file.read_text())} - NO_MODULES


def subpackage_of(module: str) -> str:
    """Return a module's subpackage: the first two parts of its name."""
    return ".".join(module.split(".")[:2])


def our_imports(of: Callable[[Path], Iterator[str]] = imports_at_start) -> dict[str, set[str]]:
    files = sources(*PACKAGES)
    modules = {module_of(file) for file in files}
    return {module_of(file): {name for name in of(file) if name in modules} - {module_of(file)} for file in files}


def test_imports_between_modules_form_no_cycle() -> None:
    graph = {
        # A package's __init__ re-exports names of its modules, so imports of a package by its own modules do not count.
        module: {name for name in names if not module.startswith(f"{name}.")}
        for module, names in our_imports(imports_outside_functions).items()
    }

    list(TopologicalSorter(graph).static_order())


def test_imports_between_subpackages_form_no_cycle() -> None:
    subpackages: dict[str, set[str]] = defaultdict(set)
    for module, names in our_imports(imports_outside_functions).items():
        own = subpackage_of(module)
        subpackages[own] |= {subpackage_of(name) for name in names} - {own, module.split(".")[0]}

    list(TopologicalSorter(subpackages).static_order())


def test_the_tests_of_a_subpackage_are_in_a_folder_with_its_name() -> None:
    subpackages = {file.parent.name for package in PACKAGES for file in (ROOT / package).glob("*/__init__.py")}
    folders = {file.parent.name for file in (ROOT / "tests").glob("*/*.py")}

    assert folders - subpackages - {*PACKAGES, "nameshot"} == set(ACROSS_SUBPACKAGES)


def test_the_worker_package_has_few_files_outside_its_subpackages() -> None:
    found = {file.name for file in (ROOT / "worker").glob("*.py")} - {"__init__.py"}

    assert len(found) <= MAX_FILES_AT_THE_TOP_OF_WORKER, sorted(found)


def test_no_two_public_classes_have_the_same_name() -> None:
    places = defaultdict(list)
    for file in sources(*PACKAGES):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module_of(file))

    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_every_dotted_name_in_a_string_or_comment_exists() -> None:
    for file in sources(*PACKAGES):
        for name in named_in_text(file):
            assert is_there(name.replace(":", ".")), f"{file} names {name}"


def is_there(name: str) -> bool:
    """Return whether a dotted name is a module or something in a module."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None) or getattr(found, "__annotations__", {}).get(part)
        return found is not None
    return False


def test_the_producer_refers_to_no_worker_module_but_worker_command() -> None:
    for file in sources("producer"):
        assert not any(name == "worker" for name in imported(file)), file
        found = {name for name in {*imported(file), *constants(file)} if re.fullmatch(r"worker(\.[A-Za-z_]+)*", name)}
        found -= NO_MODULES | {"worker"}  # "worker" alone is the name of a command
        assert found <= {"worker.command"}, f"{file}: {found}"


def test_the_producer_imports_neither_celery_nor_kombu() -> None:
    for file in sources("producer"):
        assert not roots_of(file) & CELERYS, file


def test_only_three_subpackages_import_celery_and_kombu() -> None:
    for file in sources("worker"):
        if subpackage_of(module_of(file)) not in {"worker.celery", "worker.jobs", "worker.delivery"}:
            assert not roots_of(file) & CELERYS, file


def test_only_worker_fetch_imports_requests_and_urllib3() -> None:
    for file in sources("worker", "producer"):
        if subpackage_of(module_of(file)) != "worker.fetch":
            assert not roots_of(file) & {"requests", "urllib3"}, file


def test_only_worker_model_imports_torch_and_transformers() -> None:
    for file in sources("producer", "worker"):
        if subpackage_of(module_of(file)) != "worker.model":
            assert not roots_of(file) & {"torch", "transformers"}, file


def test_only_a_few_named_modules_import_the_worker_s_settings() -> None:
    readers = {module for module, names in our_imports().items() if "worker.settings" in names}

    assert readers <= {
        *("worker.command", "worker.downloads", "worker.engine.device", "worker.engine_process.main"),
        *("worker.jobs.app", "worker.lifecycle", "worker.runtime.launcher", "worker.service"),
    }


def test_code_connects_to_redis_only_through_producer_broker_dialling() -> None:
    for file in sources("producer", "worker"):
        assert "from_url(" not in file.read_text(), f"{file}: use producer.broker.dialling.connect"


@pytest.mark.parametrize("folder", ["producer", "worker", "benchmarks", "checkpoint", "tests"])
def test_no_file_is_too_long_or_has_a_name_that_says_nothing(folder: str) -> None:
    for file in sources(folder):
        assert len(file.read_text().splitlines()) <= MAX_LINES.get(folder, MAX_LINES_OF_CODE), file
        assert file.stem not in NAMELESS, file


def fresh_import(module: str) -> dict[str, object]:
    """Import a module in a new interpreter; return the loaded modules and the CPU seconds that the import took."""
    code = (
        "import json, sys, time; before = time.process_time();"
        f"import {module};"
        "print(json.dumps({'cpu_s': time.process_time() - before, 'modules': sorted(sys.modules)}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded: dict[str, object] = json.loads(done.stdout)
    return loaded


def test_importing_the_producer_loads_neither_torch_nor_transformers_nor_pillow_nor_the_worker() -> None:
    modules = fresh_import("producer.public")["modules"]

    assert isinstance(modules, list)
    assert not {"torch", "transformers", "PIL", "numpy", "worker"} & set(modules)


def test_importing_the_producer_costs_less_than_half_a_second_of_cpu() -> None:
    quickest = min(float(str(fresh_import("producer.public")["cpu_s"])) for _ in range(3))

    assert quickest < 0.5


def test_importing_the_worker_app_loads_no_torch() -> None:
    modules = fresh_import("worker.celery")["modules"]

    assert isinstance(modules, list)
    assert not {"torch", "transformers"} & set(modules)


def test_the_launcher_of_workers_loads_no_large_package() -> None:
    modules = fresh_import("worker.runtime.launcher")["modules"]

    assert isinstance(modules, list)
    assert not {"torch", "transformers", "celery", "kombu", "redis"} & set(modules)


def test_a_decoder_process_loads_neither_model_nor_network_libraries() -> None:
    modules = fresh_import("worker.decoding.child")["modules"]

    assert isinstance(modules, list)
    assert not {"torch", "transformers", "celery", "kombu", "redis", "requests", "urllib3", "pydantic"} & set(modules)


def test_an_engine_process_loads_neither_celery_nor_redis_nor_libraries_that_download() -> None:
    modules = fresh_import("worker.engine_process.main")["modules"]

    assert isinstance(modules, list)
    assert not {"torch", "transformers", "celery", "kombu", "redis", "requests", "urllib3"} & set(modules)


def test_importing_the_producer_or_the_worker_starts_no_thread_and_reads_no_setting() -> None:
    code = (
        "import os, threading; os.environ.update(NAMESHOT_BROKER_URL='nonsense://', NAMESHOT_MAX_BATCH='nonsense');"
        "import producer.public, worker.celery; print(threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "1"


def constants_comments(file: Path) -> Iterator[str]:
    """Yield each comment that begins with ``#:``, with its lines joined."""
    for block in re.findall(r"(?:^ *#: ?.*\n)+", file.read_text(), re.MULTILINE):
        yield " ".join(line.strip().removeprefix("#:").strip() for line in block.splitlines())


def test_a_constants_comment_is_a_whole_sentence() -> None:
    for file in sources("nameshot", *PACKAGES):
        for comment in constants_comments(file):
            assert not comment[0].islower(), f"{file}: {comment}"
            assert comment.endswith("."), f"{file}: {comment}"


def test_no_sentence_calls_a_program_nobody_whoever_or_somebody() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for file in [*sources("nameshot", *PACKAGES), *pages]:
        assert not re.search(r"(?i)\b(nobody|whoever|somebody)\b", file.read_text()), file
