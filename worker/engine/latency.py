"""What a batch costs, learned while batches run: latency(n) = a + b·n.

Least squares that forgets only where there is news: a Kalman filter whose state is the line. Plain recursive least
squares with a forgetting factor would lose the slope in a quiet hour, when every batch has one image.
"""

from __future__ import annotations

from typing import Final

import numpy as np

#: Standard deviation of a batch's time as a share of it: what a device that does nothing else shows.
NOISE: Final = 0.1
#: How far a batch's cost may drift from one batch to the next, as a share of it. With `NOISE` it makes the estimate
#: mean about the last ten batches.
DRIFT: Final = 0.01
#: A surprise of more standard deviations counts as so many: one page-out is an outlier, several in a row are news.
MOST_SURPRISE: Final = 3.0
#: No clock tells a shorter batch from none; it keeps the arithmetic away from zero.
LEAST_S: Final = 1e-6


class LatencyLine:
    """Seconds that a batch of n items takes, as a line in n. Not thread-safe.

    As long as batches of one size only were seen, the whole cost is the batch's and none the item's: that is what makes
    a larger batch worth trying, and it errs towards single items where a smaller one is needed.

    Attributes:
        fixed_s: a, what a batch costs whatever its size; never negative.
        item_s: b, what each item adds; never negative.
    """

    def __init__(self) -> None:
        self.fixed_s = 0.0
        self.item_s = 0.0
        self._covariance = np.zeros((2, 2))
        self._learned = False

    def predict_s(self, size: int) -> float:
        """What a batch of this size takes; 0 before anything was learned."""
        return self.fixed_s + self.item_s * size

    def learn(self, size: int, run_s: float) -> None:
        """Take in that a batch of ``size`` items, 1 or more, took ``run_s`` seconds."""
        run_s = max(run_s, LEAST_S)
        if not self._learned:
            self._learned = True
            self.fixed_s = run_s
            self._covariance = np.diag([run_s**2, (run_s / size) ** 2])
        expected_s = self.predict_s(size)
        features = np.array([1.0, size])
        # Relative to what a batch takes, so that it means the same on a device of 1 ms and on one of 1 s.
        self._covariance += np.diag([(DRIFT * expected_s) ** 2, (DRIFT * expected_s / size) ** 2])
        noise = (NOISE * expected_s) ** 2
        variance = float(features @ self._covariance @ features) + noise
        most_s = MOST_SURPRISE * variance**0.5
        surprise_s = min(max(run_s - expected_s, -most_s), most_s)
        gain = self._covariance @ features / variance
        if surprise_s == run_s - expected_s:  # else the line is as doubtful as before: the next batch has more weight
            kept = np.eye(2) - np.outer(gain, features)
            self._covariance = kept @ self._covariance @ kept.T + np.outer(gain, gain) * noise
        fixed_s, item_s = np.array([self.fixed_s, self.item_s]) + gain * surprise_s
        self._settle(size, float(fixed_s), float(item_s))

    def _settle(self, size: int, fixed_s: float, item_s: float) -> None:
        """Keep both parts at 0 or above without changing what this size takes, and no doubt larger than the whole."""
        total_s = max(fixed_s + item_s * size, LEAST_S)
        self.item_s = min(max(item_s, 0.0), total_s / size)
        self.fixed_s = max(total_s - self.item_s * size, 0.0)
        doubt_s = np.sqrt(np.diag(self._covariance))
        shrink = np.array([total_s, total_s / size]) / np.maximum(doubt_s, [total_s, total_s / size])
        self._covariance *= np.outer(shrink, shrink)
