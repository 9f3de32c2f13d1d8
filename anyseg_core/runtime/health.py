"""The health of one sensor: its history -> state and fault. Pure and clock-free: every call is told the time.

WAITING -> ACTIVE -> SUSPECT -> FAILED -> RECOVERING -> ACTIVE, and DISABLED. SUSPECT debounces the way into
FAILED, RECOVERING the way out. `on_frame` and `on_rejected` are driven by messages, `on_time` by a timer, so
that a sensor that dies without a word is found too. Times are nanoseconds of one clock, the node's.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

import numpy as np

from anyseg_core.runtime.health_checks import DEFAULT_CHECKS, NS_PER_MS, CheckConfig, Fault, History, failed_check
from anyseg_core.runtime.modality import Modality, ModalityFrame

__all__ = [
    "ALLOWED_TRANSITIONS",
    "DEFAULT_CHECKS",
    "CheckConfig",
    "Fault",
    "HealthConfig",
    "HealthMonitor",
    "ModalityStatus",
    "State",
]

NS_PER_S = 1_000_000_000
SILENCE_FLOOR_MS = 100.0
"""A fast sensor is not silent before this: below, the scheduler's hiccups would count as faults."""
CLOCK_JUMP_NS = NS_PER_S // 2
"""A clock that steps back by more than this has been reset; less is callbacks overtaking each other."""


class State(str, Enum):
    """The state of a sensor; ACTIVE is the one whose frames are used."""

    DISABLED = "disabled"
    WAITING = "waiting"
    ACTIVE = "active"
    SUSPECT = "suspect"
    FAILED = "failed"
    RECOVERING = "recovering"

    def __str__(self) -> str:
        return self.value


ALLOWED_TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.DISABLED: frozenset({State.WAITING}),
        State.WAITING: frozenset({State.ACTIVE, State.SUSPECT, State.DISABLED}),
        State.ACTIVE: frozenset({State.SUSPECT, State.WAITING, State.DISABLED}),
        State.SUSPECT: frozenset({State.ACTIVE, State.FAILED, State.WAITING, State.DISABLED}),
        State.FAILED: frozenset({State.RECOVERING, State.WAITING, State.DISABLED}),
        State.RECOVERING: frozenset({State.ACTIVE, State.FAILED, State.WAITING, State.DISABLED}),
    }
)
"""Every step the monitor can take (one call may take several); to WAITING by a reset or cleared faults."""


@dataclass(frozen=True)
class HealthConfig:
    """What is expected of one sensor.

    `checks` overrides `DEFAULT_CHECKS`, fault by fault. Raises ValueError that names the field.
    """

    expected_rate_hz: float = 10.0
    max_age_ms: float = 300.0
    """No older frame is used. A LiDAR that stamps the start of its sweep lives up to 290 ms at 10 Hz."""
    startup_grace_s: float = 5.0
    """Time for a driver to start before `never_received`."""
    checks: Mapping[Fault, CheckConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("expected_rate_hz", "max_age_ms", "startup_grace_s"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number > 0, not {value}")
        period_ms = 1000.0 / self.expected_rate_hz
        if self.max_age_ms < period_ms:
            raise ValueError(
                f"max_age_ms {self.max_age_ms:g} is less than the period of expected_rate_hz "
                f"{self.expected_rate_hz:g} ({period_ms:.0f} ms): every frame would expire before the next one"
            )
        object.__setattr__(self, "checks", MappingProxyType({**DEFAULT_CHECKS, **self.checks}))

    def check(self, fault: Fault) -> CheckConfig:
        """The configuration of a fault; plain debouncing for one that has no check of its own."""
        return self.checks.get(fault, CheckConfig())

    @property
    def period_ns(self) -> int:
        return int(NS_PER_S / self.expected_rate_hz)

    @property
    def silent_after_ns(self) -> int:
        """Time without a message after which the sensor counts as silent."""
        periods = self.check(Fault.SILENT).threshold
        return max(int(periods * self.period_ns), int(SILENCE_FLOOR_MS * NS_PER_MS))


@dataclass(frozen=True)
class ModalityStatus:
    """The health of one modality at one moment."""

    modality: Modality
    state: State
    fault: Fault | None
    """The present fault; None while there is none."""
    reason: str
    """In words, with figures."""
    age_ms: float | None
    """Age of the newest well-formed frame, None before the first."""
    rate_hz: float | None
    """Measured rate of well-formed frames, None before the second."""
    received: int
    """Well-formed frames."""
    rejected: int
    """Malformed messages and transport faults."""
    fault_counts: Mapping[Fault, int]
    """How often each fault was seen since the start or the last `clear_faults`."""
    first_ns: int | None
    """When the present fault was first seen ..."""
    last_ns: int | None
    """... and last."""
    since_ns: int
    """When the present state began."""


@dataclass
class _PresentFault:
    fault: Fault
    reason: str
    first_ns: int
    last_ns: int


class HealthMonitor:
    """Watches one modality. Not thread-safe: the caller serialises the calls."""

    def __init__(self, modality: Modality, config: HealthConfig, now_ns: int) -> None:
        self.modality = modality
        self._config = config
        self._received = 0
        self._rejected = 0
        self._counts: Counter[Fault] = Counter()
        self._state = State.WAITING
        self._latched = False
        self._forget(now_ns)

    def on_frame(self, frame: ModalityFrame, now_ns: int) -> None:
        """A well-formed frame was received at `now_ns`. Keeps a reference to it until the next one."""
        now_ns = self._advance(now_ns)
        self._received += 1
        if self._state is State.DISABLED:
            return
        self._arrived_ns = now_ns
        self._arrivals.append(now_ns)
        history = History(self._newest, now_ns, self._rate_hz(now_ns), self._config.expected_rate_hz)
        failure = failed_check(frame, history, self._config.check)
        self._newest, self._newest_received_ns, self._newest_good = frame, now_ns, failure is None
        if failure is None:
            self._on_good(now_ns)
        else:
            self._on_bad(*failure, now_ns)

    def on_rejected(self, fault: Fault, reason: str, now_ns: int) -> None:
        """A malformed message or a transport fault."""
        now_ns = self._advance(now_ns)
        self._rejected += 1
        if self._state is State.DISABLED or not self._config.check(fault).enabled:
            return
        if fault is Fault.INCOMPATIBLE_QOS:
            self._on_incompatible_qos(reason, now_ns)
            return
        self._arrived_ns = now_ns
        self._on_bad(fault, reason, now_ns)

    def on_time(self, now_ns: int) -> None:
        """Look for what no message tells: call it at `next_deadline_ns` and now and then."""
        now_ns = self._advance(now_ns)
        deadline = self.next_deadline_ns()
        if deadline is None or now_ns < deadline:
            return
        if self._arrived_ns is None:
            waited_s = (now_ns - self._since_ns) / NS_PER_S
            self._on_missing(Fault.NEVER_RECEIVED, f"no message in {waited_s:.1f} s since the start", 1, now_ns)
            return
        silence_ns = now_ns - self._arrived_ns
        missed = 1 + (silence_ns - self._config.silent_after_ns) // self._config.period_ns
        reason = f"no message for {silence_ns / NS_PER_MS:.0f} ms (expected {self._config.expected_rate_hz:g} Hz)"
        self._on_missing(Fault.SILENT, reason, missed, now_ns)

    def next_deadline_ns(self) -> int | None:
        """When `on_time` must be called next to find silence in time; None while there is nothing to find."""
        if self._state is State.DISABLED or self._missing_is_known():
            return None
        if self._arrived_ns is None:
            if not self._config.check(Fault.NEVER_RECEIVED).enabled:
                return None
            return self._since_ns + int(self._config.startup_grace_s * NS_PER_S)
        if not self._config.check(Fault.SILENT).enabled:
            return None
        return self._arrived_ns + self._config.silent_after_ns + self._missed * self._config.period_ns + 1

    def usable(self, now_ns: int) -> bool:
        """Whether the newest frame may be used for inference now.

        True when it passed its own checks, is not older than `max_age_ms`, and the sensor is ACTIVE, or
        SUSPECT for something that the frame itself is not to blame for.
        """
        if self._state not in (State.ACTIVE, State.SUSPECT) or not self._newest_good:
            return False
        age_ms = self._age_ms(now_ns)
        return age_ms is not None and age_ms <= self._config.max_age_ms

    def status(self, now_ns: int) -> ModalityStatus:
        """The state at `now_ns`, for people and for messages."""
        present = self._present
        return ModalityStatus(
            modality=self.modality,
            state=self._state,
            fault=present.fault if present else None,
            reason=present.reason if present else _QUIET_REASON.get(self._state, ""),
            age_ms=self._age_ms(now_ns),
            rate_hz=self._rate_hz(now_ns),
            received=self._received,
            rejected=self._rejected,
            fault_counts=dict(self._counts),
            first_ns=present.first_ns if present else None,
            last_ns=present.last_ns if present else None,
            since_ns=self._since_ns,
        )

    def set_enabled(self, enabled: bool, now_ns: int) -> None:
        """Take the sensor out of use, or let it start again from WAITING."""
        if enabled == (self._state is not State.DISABLED):
            return
        self._enter(State.WAITING if enabled else State.DISABLED, now_ns)
        self._latched = False
        self._forget(now_ns)

    def clear_faults(self, now_ns: int) -> None:
        """Forget counts, latch and present fault: a failed sensor is back with its first good frame."""
        self._counts.clear()
        self._latched = False
        if self._state in (State.SUSPECT, State.FAILED, State.RECOVERING):
            self._enter(State.WAITING, now_ns)
            self._forget(now_ns)

    def reset(self, now_ns: int) -> None:
        """The clock was set back: nothing that was timed by it counts. Totals and a latched fault stay."""
        if self._state is not State.DISABLED and not self._latched:
            self._enter(State.WAITING, now_ns)
        present = self._present if self._latched else None
        self._forget(now_ns)
        self._present = present

    def reconfigure(self, config: HealthConfig, now_ns: int) -> None:
        """Use other limits from now on; the state changes with the next message or deadline."""
        self._advance(now_ns)
        self._config = config

    def _forget(self, now_ns: int) -> None:
        """Start a new history at `now_ns`."""
        self._now_ns = self._since_ns = now_ns
        self._newest: ModalityFrame | None = None
        self._newest_received_ns = now_ns
        self._newest_good = False
        self._arrived_ns: int | None = None  # newest message, malformed ones included
        self._arrivals: deque[int] = deque(maxlen=64)  # of well-formed frames, for the rate
        self._present: _PresentFault | None = None
        self._bad_streak = 0
        self._good_streak = 0
        self._missed = 0

    def _advance(self, now_ns: int) -> int:
        """The time that never runs backwards; resets where the clock was set back."""
        if now_ns < self._now_ns - CLOCK_JUMP_NS:
            self.reset(now_ns)
        self._now_ns = max(self._now_ns, now_ns)
        return self._now_ns

    def _on_good(self, now_ns: int) -> None:
        self._bad_streak = self._missed = 0
        self._good_streak += 1
        if self._state in (State.WAITING, State.SUSPECT):
            self._activate(now_ns)
        elif self._state is State.FAILED and not self._latched:
            self._good_streak = 1
            self._enter(State.RECOVERING, now_ns)
        if self._state is State.RECOVERING and self._recovered(now_ns):
            self._activate(now_ns)

    def _recovered(self, now_ns: int) -> bool:
        assert self._present is not None  # RECOVERING is only entered from FAILED, which has a fault
        config = self._config.check(self._present.fault)
        steady_s = (now_ns - self._since_ns) / NS_PER_S
        return self._good_streak >= config.recover_count and steady_s >= config.recover_time_s

    def _activate(self, now_ns: int) -> None:
        self._present = None
        self._enter(State.ACTIVE, now_ns)

    def _on_bad(self, fault: Fault, reason: str, now_ns: int) -> None:
        self._bad_streak += 1
        self._missed = 0
        self._see(fault, reason, now_ns)
        self._degrade(self._bad_streak >= self._config.check(fault).fail_count, now_ns)

    def _on_missing(self, fault: Fault, reason: str, missed: int, now_ns: int) -> None:
        self._missed = missed
        self._see(fault, reason, now_ns)
        self._degrade(missed >= self._config.check(fault).fail_count, now_ns)

    def _on_incompatible_qos(self, reason: str, now_ns: int) -> None:
        """Fatal for a sensor that nobody has heard; a second publisher's matter for one that delivers."""
        if self._state is State.WAITING:
            self._see(Fault.INCOMPATIBLE_QOS, reason, now_ns)
            self._degrade(True, now_ns)
        else:
            self._counts[Fault.INCOMPATIBLE_QOS] += 1

    def _see(self, fault: Fault, reason: str, now_ns: int) -> None:
        self._counts[fault] += 1
        self._good_streak = 0
        continues = self._present is not None and self._present.fault is fault
        first_ns = self._present.first_ns if self._present and continues else now_ns
        self._present = _PresentFault(fault, reason, first_ns, now_ns)

    def _degrade(self, failed: bool, now_ns: int) -> None:
        """One step down; with `failed`, all the way."""
        if self._state in (State.WAITING, State.ACTIVE):
            self._enter(State.SUSPECT, now_ns)
        if self._state is State.RECOVERING or (failed and self._state is State.SUSPECT):
            self._enter(State.FAILED, now_ns)
        if self._state is State.FAILED and self._present:
            self._latched |= self._config.check(self._present.fault).latch

    def _enter(self, state: State, now_ns: int) -> None:
        self._state = state
        self._since_ns = now_ns

    def _missing_is_known(self) -> bool:
        """Whether the present failure already says that nothing arrives."""
        if self._state is not State.FAILED or self._present is None:
            return False
        return self._arrived_ns is None or self._present.fault is Fault.SILENT

    def _age_ms(self, now_ns: int) -> float | None:
        """Since acquisition; since reception where the sensor's clock is not trusted or runs ahead."""
        if self._newest is None:
            return None
        born_ns = self._newest_received_ns
        if self._config.check(Fault.STALE_STAMP).enabled:
            born_ns = min(born_ns, self._newest.stamp_ns)
        return (max(now_ns, self._now_ns) - born_ns) / NS_PER_MS

    def _rate_hz(self, now_ns: int) -> float | None:
        """Frames per second over the last 2 s or 5 periods, whichever is longer."""
        if len(self._arrivals) < 2:
            return None
        window_ns = max(2 * NS_PER_S, 5 * self._config.period_ns)
        recent = [t for t in self._arrivals if now_ns - t <= window_ns]
        if len(recent) < 2:
            return 0.0
        overdue = now_ns - recent[-1] > 2 * self._config.period_ns
        return (len(recent) - 1) * NS_PER_S / max(1, (now_ns if overdue else recent[-1]) - recent[0])


_QUIET_REASON = {State.DISABLED: "disabled", State.WAITING: "waiting for the first message"}
