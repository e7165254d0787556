"""What is watched: each figure, its words, and the limit beyond which the archive is not well.

`/metrics` tells the figures, `/readyz` judges by them, and the alert rules in `deploy/prometheus`
have the same limits; a test holds them together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from archive.lifecycle import State
from storage import clocks
from storage.overview import Standing
from web.tls import Shown


@dataclass(frozen=True, slots=True)
class Limit:
    """A gauge over `most` sounds an alarm, and is told in `/readyz` under `check`, as `wrong` says
    it; without a `check` it is a matter of the alarm alone.
    """

    most: timedelta | int
    check: str = ""
    wrong: str = ""

    @property
    def value(self) -> float:
        """In the gauge's own unit."""
        return self.most.total_seconds() if isinstance(self.most, timedelta) else self.most


@dataclass(frozen=True, slots=True)
class Gauge:
    """One figure of `/metrics`. `text` is its HELP."""

    name: str
    text: str
    value: Callable[[Standing], float]
    limit: Limit | None = None


GAUGES = (
    Gauge(
        "archive_recordings_overdue",
        "Recordings past their expiry that are not erased.",
        lambda seen: seen.overdue,
    ),
    Gauge(
        "archive_overdue_seconds",
        "How long the oldest of them is overdue.",
        lambda seen: seen.overdue_for,
        Limit(
            timedelta(minutes=5),
            "overdue",
            "{0.overdue} recordings are past their time and not erased",
        ),
    ),
    Gauge(
        "archive_day_open_seconds",
        "How long ago the oldest expiry day ended whose key is still alive.",
        lambda seen: seen.day_open,
        Limit(
            timedelta(hours=26),
            "days",
            "an expiry day is long over and its key still alive: the last night's report says why",
        ),
    ),
    Gauge(
        "archive_night_age_seconds",
        "How long ago the last night's work began that came to its end.",
        lambda seen: seen.night,
        Limit(
            timedelta(hours=26),
            "nights",
            "no night's work has come to its end for over a day: the log says why",
        ),
    ),
    Gauge(
        "archive_unverified_seconds",
        "How long ago the oldest recording came in that was never read back.",
        lambda seen: seen.unverified,
        Limit(
            timedelta(hours=25),
            "unverified",
            "a recording that came in over a day ago was never read back",
        ),
    ),
    Gauge(
        "archive_verified_age_seconds",
        "How long ago that recording was read back which was read back longest ago.",
        lambda seen: seen.verified,
        Limit(
            timedelta(days=31),
            "verified",
            "a recording was not read back for over a month",
        ),
    ),
    Gauge(
        "archive_recordings_damaged",
        "Recordings whose object is missing or not what was stored.",
        lambda seen: seen.damaged,
        Limit(
            0,
            "damaged",
            "{0.damaged} recordings are damaged: the log and the ledger name them",
        ),
    ),
    Gauge(
        "archive_ledger_unsigned_seconds",
        "How long the oldest entry of the ledger waits for a signed checkpoint.",
        lambda seen: seen.unsigned,
        Limit(
            timedelta(minutes=10),
            "checkpoint",
            "the ledger was not signed for over ten minutes: the log says why",
        ),
    ),
    Gauge(
        "archive_listeners_stopped",
        "Listeners whose budget stopped them within the last hour.",
        lambda seen: seen.stopped,
        Limit(0),
    ),
    Gauge(
        "archive_glass_broken",
        "Readers who break the glass, or did within the last hour.",
        lambda seen: seen.glass,
        Limit(0),
    ),
    Gauge(
        "archive_erasing_held",
        "1 while the erasing is held until people release it, whether anything is due or not.",
        lambda seen: seen.held,
        Limit(0, "hold", "the erasing is held until people release it: the ledger says why"),
    ),
    Gauge(
        "archive_objects_lost",
        "Recordings without their object, as the last comparison of rows and objects saw.",
        lambda seen: seen.lost,
        Limit(
            0,
            "lost",
            "{0.lost} recordings have lost their object: `archive reconcile` names them",
        ),
    ),
    Gauge(
        "archive_objects_unknown",
        "Objects that no row names, as the last comparison of rows and objects saw.",
        lambda seen: seen.unknown,
        Limit(0),
    ),
    Gauge(
        "archive_ledger_bundles_wrong",
        "Bundles of the ledger with rows that are not what the tree has hashed, the last night.",
        lambda seen: seen.wrong,
        Limit(
            0,
            "rows",
            "rows of the ledger are not what its tree has hashed: the log says which",
        ),
    ),
    Gauge(
        "archive_ledger_bundles_missing",
        "Bundles of the published ledger that were gone the last night, and were put again.",
        lambda seen: seen.missing,
        Limit(0),
    ),
    Gauge(
        "archive_notices_failing",
        "Recordings elsewhere that were told of over an hour ago, or refused, and are not done.",
        lambda seen: seen.unfetched,
        Limit(0),
    ),
    Gauge(
        "archive_landing_age_seconds",
        "How long ago the landing bucket was last looked at as a whole that was so longest ago.",
        lambda seen: seen.landing,
        Limit(timedelta(hours=1)),
    ),
    Gauge(
        "archive_landing_oldest_seconds",
        "How long the oldest object lies in a landing bucket.",
        lambda seen: seen.landed,
        Limit(timedelta(hours=24)),
    ),
    Gauge(
        "archive_landing_refused",
        "Objects in landing buckets that the archive does not take.",
        lambda seen: seen.unlanded,
        Limit(0),
    ),
    Gauge(
        "archive_erasures_left",
        "Recordings that two people let go over an hour ago and that are not erased.",
        lambda seen: seen.granted,
        Limit(
            0,
            "erasures",
            "{0.granted} recordings that two people let go are not erased: the log says why",
        ),
    ),
    Gauge(
        "archive_clock_behind_seconds",
        "How far the database's clock is behind where it was seen before.",
        lambda seen: seen.clock_behind,
        Limit(clocks.APART),  # the fuse says so in `/readyz`
    ),
    Gauge(
        "archive_ledger_entries",
        "Entries of the ledger.",
        lambda seen: seen.entries,
    ),
)

TLS: tuple[tuple[str, str, Callable[[Shown], float]], ...] = (
    (
        "archive_tls_left_seconds",
        "How long the certificate of a door is valid yet.",
        lambda shown: shown.left.total_seconds(),
    ),
    (
        "archive_tls_refused",
        "1 while the files of a door's certificate cannot be taken up.",
        lambda shown: float(bool(shown.refused)),
    ),
)
"""The figures of each door's certificate: name, HELP, and value."""

LIMITS = tuple((gauge, gauge.limit) for gauge in GAUGES if gauge.limit)

CHECKS = tuple(limit.check for _, limit in LIMITS if limit.check)
"""What `judged` tells of."""


def judged(seen: Standing) -> dict[str, str]:
    """For each promise "ok", or what is wrong."""
    return {
        limit.check: limit.wrong.format(seen) if gauge.value(seen) > limit.value else "ok"
        for gauge, limit in LIMITS
        if limit.check
    }


def page(
    seen: Standing,
    states: Mapping[State, int],
    day_keys: int,
    missing: Mapping[str, int],
    shown: Sequence[Shown],
) -> str:
    """All figures in the text format of Prometheus."""
    families = [(gauge.name, gauge.text, {"": gauge.value(seen)}) for gauge in GAUGES]
    by_state = {f'{{state="{state}"}}': float(count) for state, count in states.items()}
    families += [
        ("archive_recordings", "Recordings by state.", by_state),
        ("archive_day_keys", "Expiry days whose key is alive.", {"": day_keys}),
        (
            "archive_calls_missing",
            "Answered calls of the last seven days without a recording, by source.",
            {f'{{source="{_label(source)}"}}': float(count) for source, count in missing.items()},
        ),
    ]
    families += [
        (name, text, {f'{{door="{each.files.door}"}}': value(each) for each in shown})
        for name, text, value in TLS
    ]
    lines: list[str] = []
    for name, text, samples in families:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        lines += [f"{name}{labels} {_number(value)}" for labels, value in samples.items()]
    return "\n".join([*lines, ""])


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
