"""``make audit`` lists known vulnerabilities of the versions in constraints.txt, which pip-audit looks up at PyPI.

Exits with 1 only for a known vulnerability. It names what it could not audit, and prints "Nothing was audited" if it
cannot reach the advisories; pip-audit alone would report "no known vulnerabilities" for an index without advisories.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def main(pip_audit: str) -> int:
    """Run pip-audit and print the result; return the exit status.

    Args:
        pip_audit: The path of the command, in a separate environment, because it needs other versions than we do.
    """
    options = ["--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip", "--progress-spinner=off"]
    done = subprocess.run([pip_audit, *options, "--format=json"], capture_output=True, text=True)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except ValueError:  # without a network pip-audit ends with a traceback
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        print(f"Nothing was audited: pip-audit had no answer ({reason}). Try again with a network.")
        return 0
    lines, code = verdict(dependencies)
    print("\n".join(lines))
    return code


def verdict(dependencies: list[dict[str, Any]]) -> tuple[list[str], int]:
    """Return the lines to print, and the exit status.

    Args:
        dependencies: The dependencies in pip-audit's JSON; each has ``vulns`` or a ``skip_reason``.
    """
    skipped = [dependency["name"] for dependency in dependencies if "skip_reason" in dependency]
    lines = [
        f"{dependency['name']} {dependency['version']}: {vulnerability['id']}, "
        f"fixed in {', '.join(vulnerability['fix_versions']) or 'no version yet'}"
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
