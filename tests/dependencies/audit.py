"""``make audit``: known vulnerabilities of the versions in constraints.txt, as pip-audit finds them at PyPI.

Exits with 1 only for a known vulnerability. What could not be audited is said, up to "nothing was audited" where the
advisories cannot be reached: pip-audit alone would call an index without advisories "no known vulnerabilities".
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def main(pip_audit: str) -> int:
    """Ask, print, judge.

    Args:
        pip_audit: the command; it lives in an environment of its own, since it needs other versions than we do.
    """
    options = ["--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip", "--progress-spinner=off"]
    done = subprocess.run([pip_audit, *options, "--format=json"], capture_output=True, text=True)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except ValueError:  # it ends with a traceback when there is no network
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        print(f"Nothing was audited: pip-audit had no answer ({reason}). Try again with a network.")
        return 0
    lines, code = verdict(dependencies)
    print("\n".join(lines))
    return code


def verdict(dependencies: list[dict[str, Any]]) -> tuple[list[str], int]:
    """What to print, and the exit code.

    Args:
        dependencies: of pip-audit's JSON; each has ``vulns``, or a ``skip_reason``.
    """
    skipped = [dependency["name"] for dependency in dependencies if "skip_reason" in dependency]
    lines = [
        f"{dependency['name']} {dependency['version']}: {vulnerability['id']}, "
        f"mended in {', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for dependency in dependencies
        for vulnerability in dependency.get("vulns", ())
    ]
    code = 1 if lines else 0
    audited = len(dependencies) - len(skipped)
    if not audited:
        return ["Nothing was audited: the index that answered has no advisories. Try again with a way to pypi.org."], 0
    lines.append(f"Known vulnerabilities: {len(lines)}; pinned versions audited: {audited}.")
    if skipped:
        lines.append(f"Not audited, as the index does not know them: {', '.join(skipped)}.")
    return lines, code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
