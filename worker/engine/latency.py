"""Learns what a batch of n items takes while batches run: latency(n) = a + b·n.

The estimate is a Kalman filter whose state is the line, so it forgets only where new data arrives. Recursive least
squares with a forgetting factor would lose the slope in a quiet hour, when every batch has one image.
"""

from __future__ import annotations

from typing import Final

import numpy as np

#: The standard deviation of a batch's duration, as a share of it, measured on an otherwise idle device.
NOISE: Final = 0.1
#: A batch's cost drifts by this share from one batch to the next. Together with `NOISE` it makes the estimate
#: average about the last ten batches.
DRIFT: Final = 0.01
#: A larger deviation counts as this many standard deviations, so one page-out is an outlier, but a series of them
#: moves the line.
MOST_SURPRISE: Final = 3.0
#: Durations count as at least this, below what the clock resolves, to keep the arithmetic away from zero.
LEAST_S: Final = 1e-6


class LatencyLine:
    """The duration of a batch of n items as a line in n, in seconds. Not thread-safe.

    Until batches of different sizes have run, the line ascribes the whole cost to the batch and none to its items. So
    larger batches are worth trying, and where a smaller one is needed the choice errs towards single items.

    Attributes:
        fixed_s: a, the cost of a batch of any size; never negative.
        item_s: b, the cost of each item; never negative.
    """

    def __init__(self) -> None:
        self.fixed_s = 0.0
        self.item_s = 0.0
        self._covariance = np.zeros((2, 2))
        self._learned = False

    def predict_s(self, size: int) -> float:
        """Predict the duration of a batch of this size; 0 before the first batch."""
        return self.fixed_s + self.item_s * size

    def learn(self, size: int, run_s: float) -> None:
        """Record that a batch of ``size`` items, 1 or more, took ``run_s`` seconds."""
        run_s = max(run_s, LEAST_S)
        if not self._learned:
            self._learned = True
            self.fixed_s = run_s
            self._covariance = np.diag([run_s**2, (run_s / size) ** 2])
        expected_s = self.predict_s(size)
        features = np.array([1.0, size])
        # Noise and drift are relative to the batch's duration, so they suit batches of 1 ms and of 1 s.
        self._covariance += np.diag([(DRIFT * expected_s) ** 2, (DRIFT * expected_s / size) ** 2])
        noise = (NOISE * expected_s) ** 2
        variance = float(features @ self._covariance @ features) + noise
        most_s = MOST_SURPRISE * variance**0.5
        surprise_s = min(max(run_s - expected_s, -most_s), most_s)
        gain = self._covariance @ features / variance
        # An outlier leaves the uncertainty as it was, so that the next batch weighs more.
        if surprise_s == run_s - expected_s:
            kept = np.eye(2) - np.outer(gain, features)
            self._covariance = kept @ self._covariance @ kept.T + np.outer(gain, gain) * noise
        fixed_s, item_s = np.array([self.fixed_s, self.item_s]) + gain * surprise_s
        self._settle(size, float(fixed_s), float(item_s))

    def _settle(self, size: int, fixed_s: float, item_s: float) -> None:
        """Keep both parts at 0 or above without changing this size's total, and bound the uncertainty by that total."""
        total_s = max(fixed_s + item_s * size, LEAST_S)
        self.item_s = min(max(item_s, 0.0), total_s / size)
        self.fixed_s = max(total_s - self.item_s * size, 0.0)
        doubt_s = np.sqrt(np.diag(self._covariance))
        shrink = np.array([total_s, total_s / size]) / np.maximum(doubt_s, [total_s, total_s / size])
        self._covariance *= np.outer(shrink, shrink)
