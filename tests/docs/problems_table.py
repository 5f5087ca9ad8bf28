"""docs/http-api.md's table of the codes of problems, from the code."""

from producer.web.problems import CODES


def rows() -> str:
    """Return one row per code."""
    lines = ["| code | status | what happened | what to do |", "| --- | --- | --- | --- |"]
    lines += [f"| `{code}` | {known.status} | {known.title} | {known.advice} |" for code, known in CODES.items()]
    return "\n".join(lines)


TABLES = {"problems": rows}
