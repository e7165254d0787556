"""Log lines: JSON, one object a line, for whatever collects them; text where a person looks on.

A line holds ids, our own words and where in the code it arose. What others put into errors is not
repeated: of a library's message only what stands in its code is shown, of an exception its type and
its place. Times are UTC.
"""

import json
import logging
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import TextIO

from web import trace

_OURS = "archive"

_FACTS = ("method", "route", "status", "ms", "decision", "problem")


def use(out: TextIO = sys.stderr, *, machine: bool = False) -> None:
    """Log to `out`; `machine`: as JSON unless it is a terminal."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(Json() if machine and not out.isatty() else Text())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class Json(logging.Formatter):
    """One JSON object, ASCII alone, so that nothing can end the line or look like another."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole line."""
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name.removeprefix("archive.")),
        }
        if (asked := trace.CURRENT.get()) is not None:
            line |= {"request": asked.id, "actor": asked.actor}
        line |= {name: getattr(record, name) for name in _FACTS if hasattr(record, name)}
        line["message"] = _message(record)
        if record.exc_info:
            line["where"] = _where(record)
        return json.dumps({name: value for name, value in line.items() if value != ""})


class Text(logging.Formatter):
    """The same for a person: one line, and what belongs to it indented below."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)sZ %(levelname)s %(name)s: ", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The whole line."""
        record.asctime = self.formatTime(record, self.datefmt)
        text = _message(record) + (f"\n{_where(record)}" if record.exc_info else "")
        lines = [
            "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)
            for line in text.split("\n")
        ]
        return self.formatMessage(record) + "\n    ".join(lines)


def _message(record: logging.LogRecord) -> str:
    if record.name == _OURS or record.name.startswith(f"{_OURS}."):
        return record.getMessage()
    # Values stand in the arguments, and in asyncio's messages below the first line.
    return str(record.msg).partition("\n")[0]


def _where(record: logging.LogRecord) -> str:
    kind, _, trace_back = record.exc_info or (None, None, None)
    places = "".join(traceback.format_tb(trace_back))
    return f"Traceback (most recent call last):\n{places}{kind.__name__ if kind else ''}"
