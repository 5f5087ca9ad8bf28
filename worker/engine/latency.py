"""Learns how long a batch of n items takes, a + b·n seconds, from the durations of the batches that run.

A Kalman filter estimates a and b, so old data loses weight only where new data arrives. Recursive least squares with a
forgetting factor would lose the slope during a quiet hour, in which every batch has one image.
"""

from __future__ import annotations

from typing import Final

import numpy as np

#: The standard deviation of a batch's duration, as a share of that duration, measured on an otherwise idle device.
NOISE: Final = 0.1
#: The cost of a batch drifts by this share from one batch to the next. With this value and that of `NOISE`, the
#: estimate averages about the last ten batches.
DRIFT: Final = 0.01
#: A residual of more standard deviations than this counts as this many, so a single slow batch hardly moves the line,
#: but a series of slow batches does.
MAX_RESIDUAL: Final = 3.0
#: A shorter duration counts as this one, so that the arithmetic never divides by zero.
LEAST_S: Final = 1e-6


class LatencyLine:
    """The duration of a batch of n items as a line in n, in seconds. Not thread-safe.

    Until batches of different sizes have run, the line ascribes the whole cost to the batch and none to its items, so
    `BatchSize` tries larger batches.

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
        """Record that a batch of ``size`` items (at least 1) took ``run_s`` seconds."""
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
        most_s = MAX_RESIDUAL * variance**0.5
        residual_s = min(max(run_s - expected_s, -most_s), most_s)
        gain = self._covariance @ features / variance
        # An outlier does not reduce the uncertainty, so that the next batch weighs more.
        if residual_s == run_s - expected_s:
            kept = np.eye(2) - np.outer(gain, features)
            self._covariance = kept @ self._covariance @ kept.T + np.outer(gain, gain) * noise
        fixed_s, item_s = np.array([self.fixed_s, self.item_s]) + gain * residual_s
        self._settle(size, float(fixed_s), float(item_s))

    def _settle(self, size: int, fixed_s: float, item_s: float) -> None:
        """Set a and b, each at least 0, and keep the sum for this size, which also bounds the uncertainty."""
        total_s = max(fixed_s + item_s * size, LEAST_S)
        self.item_s = min(max(item_s, 0.0), total_s / size)
        self.fixed_s = max(total_s - self.item_s * size, 0.0)
        deviation_s = np.sqrt(np.diag(self._covariance))
        shrink = np.array([total_s, total_s / size]) / np.maximum(deviation_s, [total_s, total_s / size])
        self._covariance *= np.outer(shrink, shrink)
