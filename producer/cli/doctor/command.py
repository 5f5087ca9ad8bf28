"""``nameshot doctor``: check the setup and advise what to fix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from producer.cli import options, output

if TYPE_CHECKING:
    from producer.findings import Finding

_STYLES: Final = {"ok": "green", "warning": "yellow", "broken": "bold red"}


def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Load torch even if no GPU is visible.")] = False,
    as_json: options.AsJson = False,
) -> int:
    """Check the setup and advise what to fix.

    It checks Redis, queues, workers, settings, model and GPU. Exits with status 1 if something is broken.
    """
    from producer.cli.connection import running_system
    from producer.cli.doctor import checks_local, checks_redis

    up = running_system()
    with output.waiting("checking…"):
        findings = [
            *checks_local.installation(),
            *checks_local.embedded(up),
            *checks_local.environment(),
            *checks_redis.redis(up),
            *checks_local.model(up),
            *checks_local.device(deep=deep),
        ]
    broken = any(finding.state == "broken" for finding in findings)
    if as_json:
        output.print_json({"ok": not broken, "findings": [finding.to_json() for finding in findings]})
    else:
        _print(findings)
    return 1 if broken else 0


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    console = output.console()
    for finding in findings:
        line = Text(f"{finding.state:<9}", style=_STYLES[finding.state])
        line.append(f"{finding.subject:<16}{finding.text}", style="default")
        console.print(line, soft_wrap=True)
        if finding.advice:
            console.print(Text(f"{'':25}→ {finding.advice}", style="bold"), soft_wrap=True)
