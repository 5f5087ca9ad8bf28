"""Runs the fuzzer in a separate process, because a finding may kill it, and stores findings as files for replays."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.fuzz.child import FOUND
from tests.fuzz.progress import Progress

TARGETS: Final = sorted(file.stem for file in Path(__file__).with_name("targets").glob("*.py"))
#: Ten times as long as any input takes; the longest is a download that ends at its deadline.
HANGS_AFTER_S: Final = 30.0
#: Enough for instrumented imports on a busy machine.
STARTS_WITHIN_S: Final = 60.0
#: After this many findings a target is not fuzzed further.
MOST_FINDINGS: Final = 5


@dataclass(frozen=True)
class Finding:
    """An input that made a target fail, and a report of the failure."""

    module: str
    input: bytes = field(repr=False)
    report: str

    @property
    def headline(self) -> str:
        """The report's last line, which names the exception or the signal, and where it was."""
        places = re.findall(r'File ".*?([^/"]+)", line (\d+)', self.report)
        where = f" at {':'.join(places[-1])}" if places else ""
        return self.report.strip().splitlines()[-1] + where

    @property
    def kind(self) -> str:
        """The headline without its numbers, by which repeated findings are recognised."""
        return re.sub(r"\d+", "0", self.headline)

    def write(self, folder: Path) -> Path:
        """Write the finding to a file for `read_finding`, named after the input's digest; return the file."""
        folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(self.input).hexdigest()[:12]
        file = folder / f"{self.module.rpartition('.')[2]}-{digest}.json"
        record = {"module": self.module, "input": base64.b64encode(self.input).decode(), "report": self.report}
        file.write_text(json.dumps(record, indent=2) + "\n")
        return file


def read_finding(file: Path) -> Finding:
    """Read a file that `Finding.write` wrote."""
    record = json.loads(file.read_text())
    return Finding(record["module"], base64.b64decode(record["input"]), record["report"])


@dataclass
class Run:
    """The result of fuzzing one target."""

    cases: int = 0
    duration_s: float = 0.0
    findings: list[Finding] = field(default_factory=list)


def fuzz(module: str, folder: Path, *, seconds: float, seed: int, blind: bool = False) -> Run:
    """Fuzz a target for ``seconds``; after a finding, go on with the next seed.

    Args:
        module: The module with the `Target`.
        folder: An empty folder for temporary files.
        blind: Whether to mutate without Atheris even if it is installed.
    """
    run = Run()
    progress = Progress(folder / "progress")
    started_s = time.monotonic()
    while (left_s := started_s + seconds - time.monotonic()) > 0 and len(run.findings) < MOST_FINDINGS:
        options = [f"--seconds={left_s}", f"--seed={seed}", *(["--blind"] if blind else [])]
        report = _watch(module, folder, options, progress)
        if report is None:
            break
        finding = Finding(module, progress.last_input, report)
        if finding.kind not in {known.kind for known in run.findings}:
            run.findings.append(finding)
        seed += 1
    run.cases = progress.cases
    run.duration_s = time.monotonic() - started_s
    return run


def replay(finding: Finding, folder: Path) -> str | None:
    """Run a finding's input again; return the report of its failure, or None if it passes."""
    file = folder / "input"
    file.write_bytes(finding.input)
    return _watch(finding.module, folder, [f"--input={file}"], Progress(folder / "progress"))


def _watch(module: str, folder: Path, options: list[str], progress: Progress) -> str | None:
    """Run the child; return a report of its death, or None if it ended normally."""
    errors, report = folder / "stderr.txt", folder / "report.txt"
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.child", module, str(folder), *options]
    with errors.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as child:
        try:
            code = _wait(child, progress)
        finally:
            child.kill()
    if code == 0:
        return None
    if code == FOUND:
        return report.read_text()
    lines = errors.read_text(errors="replace").splitlines()
    said = "\n".join(line for line in lines if not line.startswith(("INFO:", "WARNING:")))[-4_000:]
    if code is None:
        return f"{said}\nno end after {HANGS_AFTER_S:g} s"
    return f"{said}\ndied with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"


def _wait(child: subprocess.Popen[bytes], progress: Progress) -> int | None:
    """Return the child's exit status, or None if it made no progress for too long."""
    first = begun = progress.begun
    starts_by_s = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            return child.wait(timeout=HANGS_AFTER_S)
        except subprocess.TimeoutExpired:
            if progress.begun == begun and (begun != first or time.monotonic() > starts_by_s):
                return None
            begun = progress.begun
