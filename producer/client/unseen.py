"""Awaited jobs whose existence the broker, which is down, has not confirmed yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from producer.errors import BrokerUnavailable


class Unseen:
    """Records since when each of them is awaited, by the event loop's clock."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}

    def begin(self, job_id: str, now_s: float) -> None:
        """Record that a client waits for the job from now on."""
        self._since_s[job_id] = now_s

    def end(self, job_id: str) -> None:
        """Forget the job: the broker has confirmed its state, or no client waits for it any more."""
        self._since_s.pop(job_id, None)

    def before(self, time_s: float) -> list[str]:
        """Return the jobs that were awaited before that time."""
        return [job_id for job_id, since_s in self._since_s.items() if since_s < time_s]

    def to_fail(
        self, job_ids: Iterable[str], fault: BrokerUnavailable, *, now_s: float, outage_s: float
    ) -> Iterator[tuple[str, BrokerUnavailable]]:
        """Yield each of these jobs whose wait should fail, since the broker may never confirm it, and the error."""
        for job_id in job_ids:
            since_s = self._since_s.get(job_id, now_s)
            if job_id in self._since_s and not fault.may_pass:
                yield job_id, fault
            elif now_s - since_s > outage_s:
                yield job_id, BrokerUnavailable(f"{away(outage_s)} {fault}")

    def __len__(self) -> int:
        return len(self._since_s)


def away(outage_s: float) -> str:
    """Return the sentence for a caller that waited this long."""
    return f"Redis was down for more than {outage_s:g} s while a result was awaited."
