"""Who may do what: the one table that the tests and docs/access.md share, and the model of it.

The model knows nothing of the code: it is written from the contract. `test_access_matrix.py` asks
the real doors for every cell and compares. To write the page anew:

    .venv/bin/python -m tests.web.access_table
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs/access.md"

LEVELS = ("uploader", "supervisor", "privacy", "auditor", "admin")
READ, OPERATE, UPLOAD = {"supervisor", "privacy"}, {"auditor", "admin"}, {"uploader"}
CALL_TYPES = ("customer_service", "direct_marketing", "fault_report", "contract", "other")

STATES = {
    "receiving": "it is just being taken in",
    "abandoned": "its upload was given up",
    "stored": "it is there",
    "due": "its instant is over, nothing has been erased yet",
    "erasing": "it is being erased",
    "erased": "it is gone, its tombstone is there",
    "never": "there was none of this id",
}
"""Of a recording, as far as an answer can differ."""

ANSWERS: dict[str, dict[str, int]] = {
    "open": dict.fromkeys(STATES, 200),
    "workings": dict.fromkeys(STATES, 200),
    "none yet": dict.fromkeys(STATES, 404),
    "a form": dict.fromkeys(STATES, 400),
    "its fields": dict.fromkeys(STATES, 422),
    "no audio": dict.fromkeys(STATES, 415),
    "tus": dict.fromkeys(STATES, 412),
    "what tus": dict.fromkeys(STATES, 204),
    "its own page": dict.fromkeys(STATES, 403),
    "elsewhere": dict.fromkeys(STATES, 303),
    "search": dict.fromkeys(STATES, 200),
    "details": {
        "receiving": 404, "abandoned": 404, "stored": 200, "due": 410, "erasing": 410,
        "erased": 410, "never": 404,
    },
    "certificate": {**dict.fromkeys(STATES, 404), "erased": 200},
    "upload": {
        "receiving": 503, "abandoned": 201, "stored": 200, "due": 422, "erasing": 422,
        "erased": 422, "never": 201,
    },
}  # fmt: skip
"""What is answered to who may and, where it is about a recording, may know of it."""
ANSWERS["audio"] = ANSWERS["details"]
ANSWERS["reason"] = {**ANSWERS["details"], "stored": 201}

ANSWERS["redaction"] = {**ANSWERS["details"], "stored": 404}

ABOUT_ONE = ("details", "audio", "reason", "redaction", "certificate")
"""What is narrowed by scope for a single recording; `search` is narrowed by what it finds."""


@dataclass(frozen=True)
class Line:
    """One route of a door: the levels that may use it (none: anybody) and what it answers."""

    door: str
    method: str
    path: str
    levels: frozenset[str]
    kind: str


def _line(door: str, label: str, levels: set[str], kind: str) -> Line:
    method, path = label.split()
    return Line(door, method, path, frozenset(levels), kind)


LINES = [
    _line("ingest", "PUT /v1/recordings/{call_id}", UPLOAD, "upload"),
    _line("ingest", "POST /v1/recordings", UPLOAD, "a form"),
    _line("ingest", "PUT /v1/freeswitch/{path}", UPLOAD, "no audio"),
    _line("ingest", "POST /v1/freeswitch/{path}", UPLOAD, "a form"),
    _line("ingest", "PUT /v1/kazoo/{path}", UPLOAD, "no audio"),
    _line("ingest", "POST /v1/rtpengine", UPLOAD, "its fields"),
    _line("ingest", "OPTIONS /v1/uploads", set(), "what tus"),
    _line("ingest", "POST /v1/uploads", UPLOAD, "tus"),
    _line("ingest", "HEAD /v1/uploads/{id}", UPLOAD, "tus"),
    _line("ingest", "PATCH /v1/uploads/{id}", UPLOAD, "tus"),
    _line("ingest", "DELETE /v1/uploads/{id}", UPLOAD, "tus"),
    _line("ingest", "POST /v1/uploads/{id}", UPLOAD, "tus"),
    _line("ingest", "POST /v1/cdr", UPLOAD, "its fields"),
    _line("ingest", "POST /v1/hooks/{name}", set(), "none yet"),
    _line("ingest", "GET /orktrack/command", set(), "none yet"),
    _line("ingest", "GET /openapi.json", set(), "open"),
    _line("retrieval", "GET /v1/recordings", READ, "search"),
    _line("retrieval", "GET /v1/recordings/{id}", READ, "details"),
    _line("retrieval", "GET /v1/recordings/{id}/audio", READ, "audio"),
    _line("retrieval", "HEAD /v1/recordings/{id}/audio", READ, "audio"),
    _line("retrieval", "GET /v1/recordings/{id}/waveform", READ, "details"),
    _line("retrieval", "POST /v1/recordings/{id}/reasons", READ, "reason"),
    _line("retrieval", "GET /v1/recordings/{id}/redaction", READ, "redaction"),
    _line("retrieval", "PUT /v1/recordings/{id}/redaction", READ, "a form"),
    _line("retrieval", "DELETE /v1/recordings/{id}/redaction", {"privacy"}, "a form"),
    _line("retrieval", "GET /v1/certificates/{id}", READ, "certificate"),
    _line("retrieval", "GET /v1/certificates/{id}/page", READ, "certificate"),
    _line("retrieval", "GET /v1/recordings.csv", READ, "a form"),
    _line("retrieval", "POST /v1/exports", READ, "a form"),
    _line("retrieval", "GET /v1/exports", READ, "search"),
    _line("retrieval", "GET /v1/exports/{id}", READ, "none yet"),
    _line("retrieval", "DELETE /v1/exports/{id}", READ, "none yet"),
    _line("retrieval", "POST /v1/exports/{id}/agree", {"privacy"}, "none yet"),
    _line("retrieval", "GET /v1/exports/{id}/file", READ, "none yet"),
    _line("retrieval", "HEAD /v1/exports/{id}/file", READ, "none yet"),
    _line("retrieval", "POST /v1/glass", READ, "a form"),
    _line("retrieval", "POST /v1/glass/{id}/grant", {"privacy"}, "none yet"),
    _line("retrieval", "DELETE /v1/glass/{id}", READ, "none yet"),
    _line("retrieval", "GET /", READ, "search"),
    _line("retrieval", "POST /search", READ, "a form"),
    _line("retrieval", "GET /recordings/{id}", READ, "details"),
    _line("retrieval", "POST /recordings/{id}/reasons", READ, "a form"),
    _line("retrieval", "POST /recordings/{id}/redaction", READ, "a form"),
    _line("retrieval", "POST /recordings/{id}/redaction/withdrawal", {"privacy"}, "a form"),
    _line("retrieval", "POST /search/csv", READ, "a form"),
    _line("retrieval", "GET /exports", READ, "search"),
    _line("retrieval", "POST /exports", READ, "a form"),
    _line("retrieval", "GET /exports/{id}", READ, "none yet"),
    _line("retrieval", "GET /exports/{id}/file", READ, "none yet"),
    _line("retrieval", "HEAD /exports/{id}/file", READ, "none yet"),
    _line("retrieval", "POST /exports/{id}/agree", {"privacy"}, "a form"),
    _line("retrieval", "POST /exports/{id}/end", READ, "a form"),
    _line("retrieval", "GET /static/{name}", set(), "none yet"),
    _line("retrieval", "POST /preferences", set(), "its own page"),
    _line("retrieval", "GET /v1/sessions", READ, "workings"),
    _line("retrieval", "DELETE /v1/sessions/{session}", READ, "none yet"),
    _line("retrieval", "GET /account", READ, "workings"),
    _line("retrieval", "POST /account", READ, "a form"),
    _line("retrieval", "POST /account/sessions", READ, "a form"),
    _line("retrieval", "GET /openapi.json", set(), "open"),
    _line("operations", "GET /healthz", set(), "open"),
    _line("operations", "GET /readyz", set(), "open"),
    _line("operations", "GET /metrics", OPERATE, "workings"),
    _line("operations", "GET /v1/expiry", OPERATE, "workings"),
    _line("operations", "GET /v1/gaps", OPERATE, "workings"),
    _line("operations", "GET /v1/ledger", OPERATE, "workings"),
    _line("operations", "GET /v1/ledger/checkpoint", OPERATE, "workings"),
    _line("operations", "GET /v1/ledger/tile/{name}", OPERATE, "none yet"),
    _line("operations", "GET /v1/certificates/{id}", OPERATE, "certificate"),
    _line("operations", "GET /v1/certificates/{id}/page", OPERATE, "certificate"),
    _line("operations", "GET /v1/certificates/night/{day}", OPERATE, "none yet"),
    _line("operations", "POST /v1/glass/{id}/grant", {"admin"}, "none yet"),
    _line("operations", "DELETE /v1/glass/{id}", {"admin"}, "none yet"),
    _line("operations", "GET /", OPERATE, "workings"),
    _line("operations", "GET /ledger", OPERATE, "workings"),
    _line("operations", "GET /certificate", OPERATE, "workings"),
    _line("operations", "POST /certificate", OPERATE, "a form"),
    _line("operations", "GET /static/{name}", set(), "none yet"),
    _line("operations", "POST /preferences", set(), "its own page"),
    _line("operations", "GET /v1/sessions", OPERATE, "workings"),
    _line("operations", "DELETE /v1/sessions/{session}", OPERATE, "none yet"),
    _line("operations", "GET /account", OPERATE, "workings"),
    _line("operations", "POST /account", OPERATE, "a form"),
    _line("operations", "POST /account/sessions", OPERATE, "a form"),
    _line("operations", "GET /openapi.json", set(), "open"),
]
_SIGN_IN = {
    "GET /sign-in": "open",
    "POST /sign-in": "its own page",
    "GET /sign-in/setup": "elsewhere",
    "POST /sign-in/setup": "its own page",
    "GET /sign-in/provider": "none yet",
    "GET /sign-in/back": "none yet",
    "POST /sign-out": "its own page",
    "GET /sign-in/style.css": "open",
}
LINES += [
    _line(door, label, set(), kind)
    for door in ("retrieval", "operations")
    for label, kind in _SIGN_IN.items()
]
"""Every route of every door."""

AGENT, QUEUE = "Åke", "North"
"""Of every recording that is asked for."""

TEAMS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "by-agent": (["bo", "ÅKE"], []),
    "by-queue": ([], ["north"]),
    "elsewhere": (["bo", "North"], ["south", "Åke"]),
    "removed": (["Åke"], ["North"]),
}
"""Agents and queues of each; `removed` is removed after it was given."""


@dataclass(frozen=True)
class Reach:
    """What a reader is limited to, and which of the table's recordings that covers."""

    name: str
    inside: frozenset[str]
    call_types: list[str] | None = None
    queues: list[str] | None = None
    teams: list[str] | None = None

    @property
    def by_name(self) -> bool:
        """Whether it takes a queue or an agent to decide, which nobody knows of what is erased."""
        return self.queues is not None or self.teams is not None


_ALL, _TWO, _NONE = frozenset(CALL_TYPES), frozenset(CALL_TYPES[2:4]), frozenset[str]()

SCOPES = [
    Reach("everything", _ALL),
    Reach("two call types", _TWO, sorted(_TWO)),
    Reach("its queue", _ALL, queues=["north"]),
    Reach("another queue", _NONE, queues=["south", "Åke"]),
    Reach("a team with its agent", _ALL, teams=["by-agent"]),
    Reach("a team with its queue", _ALL, teams=["by-queue"]),
    Reach("another team", _NONE, teams=["elsewhere"]),
    Reach("a team that was removed", _NONE, teams=["removed"]),
    Reach("another queue, and a team with its agent", _ALL, queues=["south"], teams=["by-agent"]),
    Reach("two call types of its queue", _TWO, sorted(_TWO), ["North"]),
    Reach("two call types of another team", _NONE, sorted(_TWO), None, ["elsewhere"]),
]
"""Of a reader; the other levels have none."""

KEYS = {
    "valid": "as it was made",
    "rotated": "the former token, within the overlap",
    "rotated away": "the former token, after the overlap",
    "revoked": "the key was revoked",
    "from elsewhere": "asked from outside the key's networks",
    "unknown": "well written, of no key",
    "misspelt": "not even well written",
    "none": "no token at all",
}

ASKS_REASON = ("supervisor", "contract")
"""The level and the call type for which the tested archive wants a reason before audio."""


def expected(
    line: Line, level: str, key: str, scope: Reach, call_type: str, state: str
) -> tuple[int, str]:
    """The status of one cell, and the type of problem where the status alone does not say it."""
    if not line.levels:
        return ANSWERS[line.kind][state], ""
    if key in ("rotated away", "revoked", "unknown", "misspelt", "none"):
        return 401, "unauthenticated"
    if key == "from elsewhere" or level not in line.levels:
        return 403, "forbidden"
    if line.kind not in ABOUT_ONE:
        return ANSWERS[line.kind][state], ""
    if call_type not in scope.inside or (state == "erased" and scope.by_name):
        return 404, "not-found"
    if line.kind == "audio" and state == "stored" and (level, call_type) == ASKS_REASON:
        return 403, "reason-needed"
    return ANSWERS[line.kind][state], ""


def page() -> str:
    """docs/access.md."""
    return _PAGE.format(
        routes="\n".join(_routes()),
        answers="\n".join(_answers()),
        scopes="\n".join(_scopes()),
        keys="\n".join(_keys()),
    )


_PAGE = """# Who may do what

Made from the table of `tests/web/access_table.py` by `python -m tests.web.access_table`. A test
holds the two together, and another asks the running doors for every cell: level, route, state of
the key, call type, scope, state of the recording (`tests/web/test_access_matrix.py`). How rights
are given: [operations.md](operations.md#keys).

## Routes

{routes}

An auditor and an admin never hear a call, an uploader never reads one. Whoever may not is answered
403, whoever shows no valid key 401, whatever is asked for.

## States of a recording

{answers}

That is for who may know of it. A search finds what is `stored`, alone. Audio of a call type that
`[access] reason_for` names is 403 (`reason-needed`) for a supervisor who has not said why, and 429
for everybody whose budget is used up. An upload is the same call once more; one whose year is over
is refused as such (422).

Where a redacted copy stands for a recording, `audio`, its copies and its `details` are those of the
copy, for every level and by every route. The original is heard with `?version=original`, which
anybody but privacy is refused (403), whatever is asked for. Who may hear a recording may have parts
of it made silent and add to them; to let any of them be heard again takes privacy. That `redaction`
is 404 above is since nothing is redacted there. `tests/web/test_redaction.py` asks the doors.

## Scopes

{scopes}

What a reader does not know of does not exist for them: it is found by no search, and by its id it
is 404 like what never was, in the same words and with the same work. Of an erased recording nobody
can tell whose queue it was: its 410 and its certificate are for readers without such a limit, and
for the operations door.

## Keys

{keys}

Rights are read at each request, and every 0.7 s while something is being sent: it stops within a
second when the key is revoked or rotated away, when its level or its scope changes, and when a team
does.
"""


def _routes() -> list[str]:
    rows = [
        f"| door | route | anybody | {' | '.join(LEVELS)} | answers |",
        "|---|---|---|" + "---|" * (len(LEVELS) + 1),
    ]
    for line in LINES:
        may = ["yes" if level in line.levels else "" for level in LEVELS]
        marks = " | ".join(["" if line.levels else "yes", *may])
        rows.append(f"| {line.door} | `{line.method} {line.path}` | {marks} | {line.kind} |")
    return rows


def _answers() -> list[str]:
    kinds = ["details", "audio", "reason", "redaction", "certificate", "upload"]
    rows = [f"| state | | {' | '.join(kinds)} |", "|---|---|" + "---|" * len(kinds)]
    for state, words in STATES.items():
        cells = " | ".join(str(ANSWERS[kind][state]) for kind in kinds)
        rows.append(f"| {state} | {words} | {cells} |")
    return rows


def _scopes() -> list[str]:
    rows = ["| a reader limited to | knows of a call of that queue and agent |", "|---|---|"]
    for scope in SCOPES:
        known = {_ALL: "yes", _NONE: "no"}.get(scope.inside, "of these types")
        erased = ", until it is erased" if scope.by_name and scope.inside else ""
        rows.append(f"| {scope.name} | {known}{erased} |")
    return rows


def _keys() -> list[str]:
    rows = ["| token | | |", "|---|---|---|"]
    line = next(line for line in LINES if line.kind == "details")
    for key, words in KEYS.items():
        status, _ = expected(line, "supervisor", key, SCOPES[0], "other", "stored")
        rows.append(f"| {key} | {words} | {'as above' if status == 200 else status} |")
    return rows


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
