"""What KEDA and the HorizontalPodAutoscaler decide: their arithmetic as documented, without a cluster.

KEDA switches between 0 and 1 replica, and asks every `polling_interval_s`. Everything above is the HPA's, which asks
every 15 s whatever KEDA's interval is. Both read what Prometheus scraped last.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SYNC_PERIOD_S = 15.0
"""kube-controller-manager --horizontal-pod-autoscaler-sync-period."""
TOLERANCE = 0.1
"""--horizontal-pod-autoscaler-tolerance: a ratio this close to 1 changes nothing."""


class Signal(StrEnum):
    """What can be scaled on; each is a sum over all engines."""

    IN_FLIGHT = "gateway in flight"
    """Waiting in the gateway or being at an engine."""
    WAITING = "vLLM waiting"
    """vllm:num_requests_waiting."""
    CPU = "CPU"
    """Use of the engines' CPUs, as a share of one pod's request."""


@dataclass(frozen=True)
class Trigger:
    """As many replicas are wanted as bring the signal of each to the target (metricType AverageValue)."""

    signal: Signal
    target: float


@dataclass(frozen=True)
class Policy:
    """One ScaledObject."""

    triggers: tuple[Trigger, ...]
    min_replicas: int = 1
    """0: KEDA takes the last one away, too."""
    max_replicas: int = 4
    polling_interval_s: float = 15.0
    cooldown_s: float = 300.0
    """Time without any work before KEDA goes to 0."""
    up_pods: int = 4
    up_share: float = 1.0
    up_period_s: float = 15.0
    """scaleUp.policies: the larger of so many pods and this share of those there were, in each period."""
    down_window_s: float = 600.0
    """scaleDown.stabilizationWindowSeconds: the highest recommendation of this time counts."""
    down_pods: int = 1
    down_period_s: float = 60.0
    """scaleDown.policies: at most `down_pods` in `down_period_s`."""


def recommend(replicas: int, signals: Mapping[Signal, float], triggers: Sequence[Trigger]) -> int:
    """Compute the HPA's raw recommendation: the largest that any trigger asks for."""
    wanted = []
    for trigger in triggers:
        value = signals[trigger.signal]
        near = abs(value / (trigger.target * replicas) - 1) <= TOLERANCE
        wanted.append(replicas if near else math.ceil(value / trigger.target))
    return max(wanted)


@dataclass
class Autoscaler:
    """One ScaledObject over time. Call `poll` and `sync` in the order of time."""

    policy: Policy
    last_active_s: float = 0.0
    _recommended: deque[tuple[float, int]] = field(default_factory=deque)
    _changes: deque[tuple[float, int]] = field(default_factory=deque)

    def poll(self, now_s: float, replicas: int, signals: Mapping[Signal, float]) -> int:
        """Take KEDA's step: from and to 0."""
        if any(signals[trigger.signal] > 0 for trigger in self.policy.triggers):
            self.last_active_s = now_s
            return max(1, replicas)
        idle_s = now_s - self.last_active_s
        return 0 if self.policy.min_replicas == 0 and idle_s >= self.policy.cooldown_s else replicas

    def sync(self, now_s: float, replicas: int, signals: Mapping[Signal, float]) -> int:
        """Take the HPA's step: between the larger of 1 and the minimum, and the maximum. At 0 it does nothing."""
        if replicas == 0:
            self._recommended.clear()
            self._changes.clear()
            return 0
        least, most = max(1, self.policy.min_replicas), self.policy.max_replicas
        wanted = min(most, max(least, recommend(replicas, signals, self.policy.triggers)))
        _forget(self._recommended, now_s - self.policy.down_window_s)
        self._recommended.append((now_s, wanted))
        if wanted < replicas:
            wanted = min(replicas, max(count for _, count in self._recommended))
        chosen = self._limited(now_s, replicas, wanted)
        if chosen != replicas:
            self._changes.append((now_s, chosen - replicas))
        return chosen

    def _limited(self, now_s: float, replicas: int, wanted: int) -> int:
        """Hold back what the scaling policies do not allow yet."""
        policy = self.policy
        _forget(self._changes, now_s - max(policy.down_period_s, policy.up_period_s))
        if wanted > replicas:
            added = sum(by for at_s, by in self._changes if by > 0 and at_s > now_s - policy.up_period_s)
            before = replicas - added
            return min(wanted, max(replicas, before + max(policy.up_pods, math.ceil(before * policy.up_share))))
        removed = -sum(by for at_s, by in self._changes if by < 0 and at_s > now_s - policy.down_period_s)
        return max(wanted, replicas + removed - policy.down_pods)


def _forget(past: deque[tuple[float, int]], before_s: float) -> None:
    while past and past[0][0] <= before_s:
        past.popleft()
