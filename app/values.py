"""The forms that a value of the configuration may have: each function reads one text.

A ValueError says what is wrong in words that follow the name of the key, and never repeats the
value.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, urlsplit
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from archive.residency import EEA

EMBEDDED = "embedded"
"""Stands for a server that the archive starts itself."""

UNIX = "unix:"
"""What the address of a unix socket begins with."""

YEARS_AHEAD = 10
"""How far ahead the clock changes of a zone are looked for."""

_DURATION = re.compile(r"PT(?=\d)(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,6})S)?", re.ASCII)
_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})", re.ASCII
)
_LONGEST_PATH = 107
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_NOT_ENCODED = re.compile("%(?![0-9a-fA-F]{2})")
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a door listens: a host and a port (0 lets one be chosen), or a unix socket's path."""

    host: str = ""
    port: int = 0
    socket: Path | None = None

    def __str__(self) -> str:
        if self.socket:
            return f"{UNIX}{self.socket}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(text: str, folder: Path = Path()) -> Address:
    """Read `127.0.0.1:8080`, `[::1]:8080`, `name:8080`, or `unix:` and a path, which starts at the
    folder.
    """
    if text.startswith(UNIX):
        socket = folder / path(text.removeprefix(UNIX))
        if socket == folder or len(bytes(socket)) > _LONGEST_PATH:
            raise ValueError(f"must name a socket after unix:, in at most {_LONGEST_PATH} bytes")
        return Address(socket=socket)
    match = _ADDRESS.fullmatch(text)
    if not match or int(match["port"]) > 65535:
        raise ValueError(
            "must be an address and a port, like 127.0.0.1:8080 or [::1]:8080, or unix: and a path"
        )
    return Address(match["v6"] or match["host"], int(match["port"]))


def seconds(text: str) -> float:
    """The seconds of an ISO 8601 duration of hours, minutes and seconds, like PT12H."""
    match = _DURATION.fullmatch(text)
    hours, minutes, rest = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + rest
    if not total:
        raise ValueError("must be a duration like PT12H, PT90M or PT1H30M, and not zero")
    return float(total)


def web_address(text: str) -> SplitResult:
    """The parts of `http(s)://host[:port]`. ValueError for anything more, or anything else."""
    problem = "must be http:// or https:// with a host and maybe a port, and nothing after it"
    try:
        parts = urlsplit(text.rstrip("/"))
        _ = parts.port
    except ValueError:
        raise ValueError(problem) from None
    whole = parts.hostname and not (parts.path or parts.query or parts.fragment)
    if parts.scheme not in ("http", "https") or not whole or "@" in parts.netloc:
        raise ValueError(problem)
    return parts


def optional_web_address(text: str) -> str:
    """The address of a website, or ""."""
    return web_address(text).geturl() if text else ""


def endpoint(text: str) -> str:
    """`embedded`, or the address of an S3 server."""
    return text if text == EMBEDDED else web_address(text).geturl()


def bucket(text: str) -> str:
    """The name of a bucket, as every store takes it."""
    if not _BUCKET.fullmatch(text):
        raise ValueError("must be 3 to 63 small letters, digits, dots or hyphens")
    return text


def region(text: str) -> str:
    """The region that requests are signed for."""
    if not _REGION.fullmatch(text):
        raise ValueError("must be the region to sign for, like us-east-1")
    return text


def country(text: str) -> str:
    """Where the store stands, by its ISO 3166 code. Outside the EU and the EEA it is refused."""
    if text not in EEA:
        raise ValueError(
            "must be the two-letter code of the country where the store stands, in the EU or the"
            " EEA: recordings are kept nowhere else"
        )
    return text


def check_database_url(text: str) -> None:
    """Refuse what is neither `embedded` nor a URL of PostgreSQL, nor empty.

    A password with a / or a # in it ends the host early: its rest is taken for a port, the name of
    the database or a fragment.
    """
    if text in ("", EMBEDDED):
        return
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("must be embedded, or begin with postgresql://")
    try:
        parts = urlsplit(text)
        for host in parts.netloc.rpartition("@")[2].split(","):  # there may be several
            _ = urlsplit(f"//{host}").port
        good = not parts.fragment and "@" not in parts.path and not _NOT_ENCODED.search(text)
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            "must be like postgresql://user:password@host:port/name, without a #; special"
            " characters of the password are percent-encoded, as %2F for a /"
        )


def has_password(url: str) -> bool:
    """Whether a URL of PostgreSQL holds a password."""
    parts = urlsplit(url)
    return parts.password is not None or "password" in parse_qs(parts.query)


def path(text: str) -> Path:
    """A path; `~` is the home of who runs this, `~name` that of another user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("must begin with the home of a user who is known here, or no ~") from None


def key_store(text: str) -> Path:
    """The folder of `file:DIR`."""
    kind, _, folder = text.partition(":")
    if kind != "file" or not folder:
        raise ValueError("must be file: and a folder, like file:keys")
    return path(folder)


def zone(text: str) -> ZoneInfo:
    """A time zone by its name."""
    try:
        return ZoneInfo(text)
    except (OSError, ValueError, LookupError):
        raise ValueError("is no time zone that is known here, like Europe/Helsinki") from None


def nightly(text: str, zone: ZoneInfo) -> str:
    """A cron expression; one that fires in an hour that a clock change touches is refused.

    In such an hour a job would run twice, or not at all.
    """
    try:
        trigger = CronTrigger.from_crontab(text, timezone=zone)
    except (ValueError, LookupError):
        raise ValueError("must be a cron expression of five fields, like 30 1 * * *") from None
    if re.search(r"\d", text.split()[4]):
        # Day 0 is Sunday to cron and Monday to APScheduler.
        raise ValueError("must name days of the week by their names, like mon-fri")
    now = datetime.now(UTC)
    if trigger.get_next_fire_time(None, now) is None:
        raise ValueError("is a time that never comes")
    hour = next(field for field in trigger.fields if field.name == "hour")
    day = datetime(2000, 1, 1, tzinfo=UTC)
    asked = {at for at in range(24) if hour.get_next_value(day.replace(hour=at)) == at}
    if touched := asked & changed_hours(zone, now):
        hours = ", ".join(f"{at:02}" for at in sorted(touched))
        raise ValueError(f"falls in an hour that a clock change of {zone.key} touches ({hours})")
    return text


def changed_hours(zone: ZoneInfo, now: datetime) -> set[int]:
    """The hours of the day that a clock change of the coming years skips or repeats."""
    hours: set[int] = set()
    day = now.replace(minute=0, second=0, microsecond=0)
    for _ in range(YEARS_AHEAD * 366):
        later = day + timedelta(days=1)
        if _offset(day, zone) != _offset(later, zone):
            hours |= _touched(zone, day, later)
        day = later
    return hours


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()


def _touched(zone: ZoneInfo, before: datetime, after: datetime) -> set[int]:
    """The hours between the two readings of the wall clock at the one change in between."""
    old, new = _offset(before, zone), _offset(after, zone)
    while after - before > timedelta(minutes=1):
        middle = before + (after - before) / 2
        before, after = (middle, after) if _offset(middle, zone) == old else (before, middle)
    minute = timedelta(minutes=1)
    change = (after + minute / 2).replace(second=0, microsecond=0, tzinfo=None)
    first, last = change + min(old, new), change + max(old, new) - minute
    count = int((last - first) / timedelta(hours=1)) + 2
    hours = (first.replace(minute=0) + timedelta(hours=n) for n in range(count))
    return {at.hour for at in hours if at <= last}
