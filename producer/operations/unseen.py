"""Jobs that are awaited, and of which the broker, being away, has not said yet whether they exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from producer.errors import BrokerUnavailable


class Unseen:
    """Since when each of them is awaited, by the event loop's clock."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}

    def begin(self, job_id: str, now_s: float) -> None:
        """It is awaited from now on."""
        self._since_s[job_id] = now_s

    def end(self, job_id: str) -> None:
        """The broker has spoken of it, or nothing waits for it any more."""
        self._since_s.pop(job_id, None)

    def before(self, time_s: float) -> list[str]:
        """Those that were awaited before that time."""
        return [job_id for job_id, since_s in self._since_s.items() if since_s < time_s]

    def to_fail(
        self, job_ids: Iterable[str], fault: BrokerUnavailable, *, now_s: float, outage_s: float
    ) -> Iterator[tuple[str, BrokerUnavailable]]:
        """Those among these that may not exist and will not be told so, with what their waits end with."""
        for job_id in job_ids:
            since_s = self._since_s.get(job_id, now_s)
            if job_id in self._since_s and not fault.may_pass:
                yield job_id, fault
            elif now_s - since_s > outage_s:
                yield job_id, BrokerUnavailable(f"{away(outage_s)} {fault}")

    def __len__(self) -> int:
        return len(self._since_s)


def away(outage_s: float) -> str:
    """The sentence for whoever has waited for so long."""
    return f"Redis was away for more than {outage_s:g} s while a result was awaited."
