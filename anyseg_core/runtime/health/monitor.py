"""The health of one sensor: its history -> state and fault. Pure and clock-free: every call is told the time.

WAITING -> ACTIVE -> SUSPECT -> FAILED -> RECOVERING -> ACTIVE, and DISABLED. SUSPECT debounces the way into
FAILED, RECOVERING the way out. What a sensor says and when it says it are two verdicts: a sensor that is slow or late
is SUSPECT and used, one that was silent comes back by and by, or at once where it is needed (`usable_in_need`).
`on_frame` and `on_rejected` are driven by messages, `on_time` by a timer, so that a sensor that dies without a word is
found too. Times are nanoseconds of one clock, the node's.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from anyseg_core.runtime.clock_steps import clock_was_set
from anyseg_core.runtime.health.checks import Failure, failed_checks
from anyseg_core.runtime.health.history import History, LearntPeriod, UsualProfile
from anyseg_core.runtime.health.quality import Quality, SmoothQuality, quality_of
from anyseg_core.runtime.health.state import ALLOWED_TRANSITIONS, HealthConfig, ModalityStatus, State
from anyseg_core.runtime.health.statistics import EventStatistics, statistics_of
from anyseg_core.runtime.health.thresholds import CHECKS, DEFAULT_CHECKS, CheckConfig, Fault
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S

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

TOLD_IN_SECONDS_NS = 10 * NS_PER_S
"""From here on a silence is told in whole seconds."""
UNKNOWN_SILENT_NS = NS_PER_S
"""Before its rate is known a sensor is silent after this, or after a gap much longer than those it has had."""
RELAPSE_WINDOW = 3.0
"""A sensor that fails again within this many times its recovery time of coming back has relapsed, ..."""
MAX_RELAPSES = 4
"""... which doubles the time it has to be good for, as often as this at most: 8 s where 0.5 s is the default."""
TOLD_PERIODS = 5
"""A silence that was told for so many periods explains a gap in the sequence numbers after it."""
MOST_PERIODS = 10
"""A slow sensor's gaps may be this long at most before they are silence."""
SLOW = 1.3
"""A sensor whose usual gap is longer than this many periods, by more than jitter, is not silent within such gaps."""
GAPS = 5
"""Whose median is the rate that `low_rate` judges."""


@dataclass
class _PresentFault:
    fault: Fault
    reason: str
    first_ns: int
    last_ns: int


class HealthMonitor:
    """Watches one modality. Not thread-safe: the caller serialises the calls."""

    def __init__(self, modality: Sensor, config: HealthConfig, now_ns: int) -> None:
        self.modality = modality
        self._config = config
        self._received = 0
        self._rejected = 0
        self._counts: Counter[Fault] = Counter()
        self._state = State.WAITING
        self._latched = False
        self._forget(now_ns)

    def on_frame(self, frame: SensorFrame, now_ns: int) -> None:
        """A well-formed frame was received at `now_ns`. Keeps a reference to it until the next one."""
        now_ns = self._advance(now_ns)
        self._received += 1
        if self._state is State.DISABLED:
            return
        self._arrived_ns, self._excused_until_ns = now_ns, None
        self._arrivals.append(now_ns)
        if len(self._arrivals) > 1:
            self._learnt.learn(self._arrivals[-1] - self._arrivals[-2])
        distrust, untimely = self._examine(frame, now_ns)
        self._newest, self._newest_received_ns, self._newest_good = frame, now_ns, distrust is None
        self._rejected_last = False
        self._is_slow = (self._gap_ns() or 0) > SLOW * self.period_ns
        if distrust is not None:
            self._on_bad(*distrust, now_ns)
        elif untimely is not None and not self._is_young(now_ns):
            self._on_bad(*untimely, now_ns)
        else:
            self._on_good(now_ns, untimely)

    def on_rejected(self, fault: Fault, reason: str, now_ns: int) -> None:
        """A malformed message or a transport fault."""
        now_ns = self._advance(now_ns)
        self._rejected += 1
        if self._state is State.DISABLED or not self._config.check(fault).enabled:
            return
        if fault is Fault.INCOMPATIBLE_QOS:
            self._on_incompatible_qos(reason, now_ns)
            return
        self._arrived_ns, self._excused_until_ns = now_ns, None
        self._rejected_last = True
        self._on_bad(fault, reason, now_ns)

    def on_time(self, now_ns: int) -> None:
        """Look for what no message tells: call it at `next_deadline_ns` and now and then."""
        now_ns = self._advance(now_ns)
        if self._recovered(now_ns):
            self._activate(now_ns)
        deadline = self._silence_deadline_ns()
        if deadline is None or now_ns < deadline:
            return
        if self._arrived_ns is None:
            waited_s = (now_ns - self._since_ns) / NS_PER_S
            self._see(Fault.NEVER_RECEIVED, f"no message in {waited_s:.1f} s since the start", now_ns)
            self._degrade(True, now_ns)  # the grace has debounced it: there are no messages to count
            return
        silence_ns = now_ns - self._arrived_ns
        missed = 1 + (silence_ns - self._silent_after_ns()) // self.period_ns
        self._on_missing(Fault.SILENT, self._silence(silence_ns), missed, now_ns)

    def next_deadline_ns(self) -> int | None:
        """When `on_time` must be called next to find silence or recovery in time; None: there is nothing to find."""
        deadlines = (self._silence_deadline_ns(), self._recovery_deadline_ns())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _silence_deadline_ns(self) -> int | None:
        if self._state is State.DISABLED or self._missing_is_known():
            return None
        if self._arrived_ns is None:
            if not self._config.check(Fault.NEVER_RECEIVED).enabled:
                return None
            return self._since_ns + int(self._config.startup_grace_s * NS_PER_S)
        if not self._config.check(Fault.SILENT).enabled:
            return None
        deadline_ns = self._arrived_ns + self._silent_after_ns() + self._missed * self.period_ns + 1
        return max(deadline_ns, self._excused_until_ns or 0)

    def excuse(self, until_ns: int) -> None:
        """The caller was held up, and messages may wait unread: silence is not judged before `until_ns`.

        Once in a silence: a caller that is always late must find it too.
        """
        deadline_ns = self._silence_deadline_ns()
        if self._excused_until_ns is None and deadline_ns is not None and deadline_ns < until_ns:
            self._excused_until_ns = until_ns

    def usable(self, now_ns: int) -> bool:
        """Whether the newest frame may be used for inference now.

        True when it passed its own checks, is not older than `max_age_ms`, and the sensor is ACTIVE, or
        SUSPECT for something that the frame itself is not to blame for.
        """
        return self._state in (State.ACTIVE, State.SUSPECT) and self._is_good(now_ns)

    def may_be_compared(self, now_ns: int) -> bool:
        """Whether the newest frame may be compared with those of others: as `usable`, and while the sensor recovers."""
        return self.usable(now_ns) or (self._state is State.RECOVERING and self._is_good(now_ns))

    @property
    def is_distrusted(self) -> bool:
        """Whether it is out, or on its way back, for what it showed; not for its timing alone."""
        return self._distrusted and self._is_out

    def usable_in_need(self, now_ns: int) -> bool:
        """Whether the newest frame may be used where there is nothing better: only its timing has failed the sensor.

        A loose contact is kept out of the masks while other sensors live, so that they do not flicker; alone it is
        better than none.
        """
        return self._is_out and not (self._distrusted or self._latched) and self._is_good(now_ns)

    @property
    def _is_out(self) -> bool:
        return self._state in (State.FAILED, State.RECOVERING)

    def _is_good(self, now_ns: int) -> bool:
        """Whether the newest frame passed its own checks and is young enough."""
        return self._newest_good and self._is_young(now_ns)

    @property
    def period_ns(self) -> int:
        """Between two frames: as it is set, else as it was learnt, else as it is assumed."""
        is_set = self._config.expected_rate_hz > 0
        return self._config.period_ns if is_set else self._learnt.value_ns or self._config.period_ns

    def set_lag(self, lag_ns: int) -> None:
        """How late this computer itself is, 0 while it is not: so much later a sensor is silent or late."""
        self._lag_ns = lag_ns

    @property
    def newest_is_good(self) -> bool:
        """Whether the newest frame passed its own checks, whatever the sensor's state."""
        return self._newest_good

    @property
    def quality(self) -> Quality | None:
        """Over about the last second of good frames, None before the first."""
        return self._quality.newest

    def status(self, now_ns: int) -> ModalityStatus:
        """The state at `now_ns`, for people and for messages."""
        present, is_out = self._present, self._is_out
        return ModalityStatus(
            modality=self.modality,
            state=self._state,
            fault=present.fault if present else None,
            reason=self._reason(now_ns),
            age_ms=self._age_ms(now_ns),
            rate_hz=self._rate_hz(now_ns),
            received=self._received,
            rejected=self._rejected,
            fault_counts=dict(self._counts),
            first_ns=present.first_ns if present else None,
            last_ns=present.last_ns if present else None,
            since_ns=self._since_ns,
            quality=self._quality.newest,
            expected_rate_hz=NS_PER_S / self.period_ns if self._rate_is_known else 0.0,
            recover_time_s=self._recover_time_s(self._config.check(present.fault)) if present and is_out else None,
        )

    def _reason(self, now_ns: int) -> str:
        """The present fault in words; of a silence that goes on, how long it has lasted by now."""
        if self._present is None:
            return _QUIET_REASON.get(self._state, "")
        silence_ns = now_ns - (self._arrived_ns or now_ns)
        goes_on = self._present.fault is Fault.SILENT and silence_ns > self._silent_after_ns()
        return self._silence(silence_ns) if goes_on else self._present.reason

    def _silence(self, silence_ns: int) -> str:
        long = silence_ns >= TOLD_IN_SECONDS_NS
        told = f"{silence_ns / NS_PER_S:.0f} s" if long else f"{silence_ns / NS_PER_MS:.0f} ms"
        return f"no message for {told} (expected {self._expected()})"

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
        """The clock was set: nothing that was timed by it counts. Totals and a latched fault stay."""
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
        self._newest: SensorFrame | None = None
        self._newest_received_ns = now_ns
        self._newest_good = False
        self._rejected_last = False  # the newest message was no frame
        self._arrived_ns: int | None = None  # newest message, malformed ones included
        self._excused_until_ns: int | None = None
        self._arrivals: deque[int] = deque(maxlen=64)  # of well-formed frames, for the rate
        self._usual = UsualProfile()
        self._quality = SmoothQuality()
        self._present: _PresentFault | None = None
        self._badness = 0.0  # bad messages, less half of the good ones
        self._good_streak = 0
        self._missed = 0
        self._relapses = 0
        self._came_back_ns: int | None = None
        self._learnt = LearntPeriod()
        self._is_slow = False
        self._distrusted = False  # what has failed it is not its timing alone
        self._lag_ns = 0

    def _advance(self, now_ns: int) -> int:
        """The time that never runs backwards; resets where the clock was set."""
        if clock_was_set(self._now_ns, now_ns):
            self.reset(now_ns)
        self._now_ns = max(self._now_ns, now_ns)
        return self._now_ns

    def _examine(self, frame: SensorFrame, now_ns: int) -> tuple[Failure | None, Failure | None]:
        """As `failed_checks`; what a frame to be trusted is like becomes a bit more usual."""
        if frame.data.size == 0:
            return _nothing_in(frame), None
        statistics = statistics_of(frame)
        usual = self._usual.value
        history = History(statistics, self._newest, now_ns, self._gap_ns(), self.period_ns, usual, self._lag_ns)
        distrust, untimely = failed_checks(frame, history, self._config.check)
        if distrust is not None and self._is_told(distrust.fault, now_ns):
            distrust = None
        if distrust is None:
            self._quality.learn(quality_of(statistics, usual))
            if not isinstance(statistics, EventStatistics):
                self._usual.learn(statistics.profile)
        return distrust, untimely

    def _on_good(self, now_ns: int, untimely: Failure | None) -> None:
        """A frame that may be used. One that is late or slow is said to be, and the sensor stays SUSPECT."""
        self._badness = max(0.0, self._badness - 0.5)
        self._missed = 0
        self._good_streak += 1
        if self._state is State.FAILED and not self._latched:
            self._good_streak = 1
            self._enter(State.RECOVERING, now_ns)
        if self._recovered(now_ns) or (self._state in (State.WAITING, State.SUSPECT) and untimely is None):
            self._activate(now_ns)
        if untimely is None:
            return
        if self._is_out:
            self._counts[untimely.fault] += 1
        else:
            self._see(*untimely, now_ns)
            self._degrade(False, now_ns)

    def _recovered(self, now_ns: int) -> bool:
        deadline_ns = self._recovery_deadline_ns()
        return deadline_ns is not None and now_ns >= deadline_ns

    def _recovery_deadline_ns(self) -> int | None:
        """When it will have been good for long enough; None while it is not recovering, or has not been so often."""
        if self._state is not State.RECOVERING:
            return None
        assert self._present is not None  # RECOVERING is only entered from FAILED, which has a fault
        config = self._config.check(self._present.fault)
        if self._good_streak < config.recover_count:
            return None
        return self._since_ns + int(self._recover_time_s(config) * NS_PER_S)

    def _recover_time_s(self, config: CheckConfig) -> float:
        """How long it must be good before it is used again: longer the more often it has relapsed."""
        return config.recover_time_s * 2**self._relapses

    def _activate(self, now_ns: int) -> None:
        if self._state is State.RECOVERING:
            self._came_back_ns = now_ns
            self._badness = 0.0
        self._present = None
        self._distrusted = False
        self._enter(State.ACTIVE, now_ns)

    def _on_failed(self, fault: Fault, now_ns: int) -> None:
        """Remember whether it had only just come back."""
        window_s = RELAPSE_WINDOW * self._recover_time_s(self._config.check(fault))
        came_back_ns = self._came_back_ns
        relapsed = came_back_ns is not None and now_ns - came_back_ns <= window_s * NS_PER_S
        self._relapses = min(self._relapses + 1, MAX_RELAPSES) if relapsed else 0

    def _on_bad(self, fault: Fault, reason: str, now_ns: int) -> None:
        self._badness += 1
        self._missed = 0
        self._see(fault, reason, now_ns)
        self._degrade(self._badness >= self._config.check(fault).fail_count, now_ns)

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
        if failed and self._state is State.SUSPECT and self._present:
            self._on_failed(self._present.fault, now_ns)
            self._enter(State.FAILED, now_ns)
        elif self._state is State.RECOVERING:
            self._enter(State.FAILED, now_ns)
        if self._state is State.FAILED and self._present:
            self._latched |= self._config.check(self._present.fault).latch
            self._distrusted |= not CHECKS[self._present.fault].is_timing

    def _enter(self, state: State, now_ns: int) -> None:
        self._state = state
        self._since_ns = now_ns

    def _missing_is_known(self) -> bool:
        """Whether the present failure already says that nothing arrives."""
        if self._state is not State.FAILED or self._present is None:
            return False
        return self._arrived_ns is None or self._present.fault is Fault.SILENT

    def _is_told(self, fault: Fault, now_ns: int) -> bool:
        """Whether what is wrong with a frame only says once more what is known of the messages before it.

        Events that were lost in a long silence, or with messages that were rejected, are known to be; and stamps that
        were ahead of time can only become right again by going back.
        """
        present = self._present
        if present is None:
            return False
        if fault is Fault.STAMP_REGRESSION:
            return present.fault is Fault.FUTURE_STAMP and not self._newest_good
        if fault is not Fault.EVENT_SEQUENCE_GAP:
            return False
        silent_ns = now_ns - present.first_ns if present.fault is Fault.SILENT else 0
        return self._rejected_last or silent_ns > TOLD_PERIODS * self.period_ns

    def _silent_after_ns(self) -> int:
        """Of a sensor that is known to be slow or to lose messages, the gaps that it has had are no silence."""
        longest_ns = max(self._gaps_ns(), default=0)
        if not self._rate_is_known:
            return max(UNKNOWN_SILENT_NS, self._config.silent_after_ns(longest_ns)) + self._lag_ns
        expected_ns = self._config.silent_after_ns(self.period_ns)
        loses_messages = self._present is not None and self._present.fault is Fault.EVENT_SEQUENCE_GAP
        if self._is_slow or loses_messages:
            longest_ns = min(longest_ns, MOST_PERIODS * self.period_ns)
            expected_ns = max(expected_ns, self._config.silent_after_ns(longest_ns))
        return expected_ns + self._lag_ns

    @property
    def _rate_is_known(self) -> bool:
        return self._config.expected_rate_hz > 0 or self._learnt.value_ns is not None

    def _expected(self) -> str:
        """The expected rate, in words."""
        if not self._rate_is_known:
            return "some within a second"
        return f"{NS_PER_S / self.period_ns:.3g} Hz" + ("" if self._config.expected_rate_hz else ", as before")

    def _gaps_ns(self) -> list[int]:
        """The last `GAPS` gaps between frames."""
        return [later - earlier for earlier, later in pairwise(list(self._arrivals)[-GAPS - 1 :])]

    def _gap_ns(self) -> float | None:
        """As `History.gap_ns` says."""
        gaps = self._gaps_ns()
        return float(min(median(gaps), gaps[-1])) if len(gaps) == GAPS else None

    def _is_young(self, now_ns: int) -> bool:
        born_ns = self._born_ns()
        return born_ns is not None and self._config.is_fresh(born_ns, max(now_ns, self._now_ns))

    def _age_ms(self, now_ns: int) -> float | None:
        born_ns = self._born_ns()
        return None if born_ns is None else (max(now_ns, self._now_ns) - born_ns) / NS_PER_MS

    def _born_ns(self) -> int | None:
        newest = self._newest
        return None if newest is None else self._config.born_ns(self._newest_received_ns, newest.stamp_ns)

    def _rate_hz(self, now_ns: int) -> float | None:
        """Frames per second over the last 2 s or 5 periods, whichever is longer."""
        if len(self._arrivals) < 2:
            return None
        window_ns = max(2 * NS_PER_S, 5 * self.period_ns)
        recent = [t for t in self._arrivals if now_ns - t <= window_ns]
        if len(recent) < 2:
            return 0.0
        overdue = now_ns - recent[-1] > 2 * self.period_ns
        return (len(recent) - 1) * NS_PER_S / max(1, (now_ns if overdue else recent[-1]) - recent[0])


def _nothing_in(frame: SensorFrame) -> Failure:
    if frame.kind.is_points:
        return Failure(Fault.FEW_POINTS, "0 points")
    return Failure(Fault.WRONG_SIZE, f"there is nothing in it: shape {frame.data.shape}")


_QUIET_REASON = {State.DISABLED: "disabled", State.WAITING: "waiting for the first message"}
