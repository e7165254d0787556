"""Nothing that was sent can make a log line, end one, or be read in one."""

import io
import json
import logging
import re
import sys
from typing import Any

import pytest

from app import lines
from web import trace

NEEDLE = "+358 40 918 7265"
EVIL = "x\r\n2026-01-01T00:00:00Z ERROR archive: forged\u2028\x1b[2Jy\x00"


def record(name: str, message: object, *values: object, **more: Any) -> logging.LogRecord:
    error = more.pop("exc_info", None)
    made = logging.LogRecord(name, logging.WARNING, __file__, 1, message, values, error)
    made.__dict__.update(more)
    return made


def test_a_line_is_one_object_in_ascii() -> None:
    said = lines.Json().format(record("archive.web", "said %s", EVIL, event="request", status=403))
    assert said.isascii()
    assert said.isprintable()
    found = json.loads(said)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("at"))
    assert found == {
        "level": "warning", "event": "request", "status": 403, "message": f"said {EVIL}",
    }  # fmt: skip


def test_a_line_within_a_request_says_which_and_whose() -> None:
    with trace.tracing() as traced:
        trace.note(actor="a1b2", decision="allowed")
        found = json.loads(lines.Json().format(record("archive.verify", "x")))
    assert (found["request"], found["actor"]) == (traced.id, "a1b2")
    assert found["event"] == "verify"
    assert "request" not in json.loads(lines.Json().format(record("archive", "x")))


def test_a_person_reads_one_line_and_what_belongs_below_is_indented() -> None:
    said = lines.Text().format(record("archive.web", "answered %s\n%s", EVIL, "  File x, line 1"))
    first, *below = said.split("\n")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ WARNING archive.web: answered .*", first)
    assert all(line.startswith("    ") for line in below)
    assert "\x1b" not in said
    assert "\r" not in said
    assert "\u2028" not in said


@pytest.mark.parametrize("form", [lines.Json(), lines.Text()])
def test_of_an_exception_only_its_type_and_place_are_told(form: logging.Formatter) -> None:
    said_by_a_driver = f"no such number: {NEEDLE}"

    def fail() -> None:
        raise ValueError(said_by_a_driver)

    try:
        fail()
    except ValueError:
        said = form.format(record("archive.jobs", "it failed", exc_info=sys.exc_info()))
    assert "ValueError" in said
    assert "in fail" in said
    assert "Traceback" in said
    assert NEEDLE not in said
    assert "no such number" not in said


@pytest.mark.parametrize("form", [lines.Json(), lines.Text()])
def test_what_a_library_puts_into_its_message_is_not_repeated(form: logging.Formatter) -> None:
    said = form.format(record("asyncio", f"Task exception was never retrieved\nfuture: {NEEDLE}"))
    assert "never retrieved" in said
    assert NEEDLE not in said
    assert NEEDLE not in form.format(record("minio", "cannot put %s", NEEDLE))


@pytest.mark.parametrize(
    ("terminal", "machine", "as_json"),
    [(False, True, True), (True, True, False), (False, False, False)],
)
def test_a_machine_reads_json_and_a_person_text(
    terminal: bool, machine: bool, as_json: bool
) -> None:
    class Out(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    root, out = logging.getLogger(), Out()
    before, level = root.handlers[:], root.level
    root.handlers = []
    try:
        lines.use(out, machine=machine)
        logging.getLogger("archive.jobs").warning("hello")
    finally:
        root.handlers = before
        root.setLevel(level)
    assert out.getvalue().startswith("{") is as_json
    assert "hello" in out.getvalue()
