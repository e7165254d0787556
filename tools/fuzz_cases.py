"""What no schema can say of a request, for `tools/fuzz_doors.py`, and how it is put right."""

from base64 import b64encode
from typing import Any
from uuid import uuid4

from tests.sounds import tone
from tests.web.test_openapi_answers import now

TUS = "/v1/uploads"
AUDIO = tone(0.1)
DIGESTS = frozenset(("Content-Digest", "Content-MD5"))


def is_beyond_schemas(case: Any) -> bool:
    """Whether a request has something of which no schema can say when it is right."""
    return (
        # It was given out, and stands alone.
        "cursor" in case.query
        # Its other parts are named by whatever stands in a header.
        or case.media_type == "multipart/form-data"
        # Whether a field of a form is JSON, and whether a text is a table.
        or (case.path == "/v1/cdr" and case.media_type != "application/json")
        # How long a text is behind its percents, and whether it is UTF-8.
        or "Archive-Reason" in case.headers
        # Whose instant is before the first year, or after the last.
        or any(str(value).startswith(("0001-01-01", "9999-12-31")) for value in case.query.values())
        # Which zones there are, and who has a key.
        or "zone" in case.query
        or case.path == "/v1/glass"
        # Whether a digest is that of the body.
        or not DIGESTS.isdisjoint(case.headers)
        # Which part of the audio comes before which, and that only a copy has silent ones.
        or "silent" in case.query
        # Headers that go with each other, with the body and with what came before; and in one of
        # them names that stand there once, and texts that are UTF-8 behind their base64.
        or case.path.startswith(TUS)
    )


def put_right(case: Any) -> bool:
    """Put right what no schema can say, as far as it can be: whether it must be taken then."""
    if "Archive-Reason" in case.headers:
        case.headers["Archive-Reason"] = "complaint%204711%20%C3%A4"
    if "zone" in case.query:
        case.query["zone"] = "Europe/Helsinki"
    if case.path == "/v1/glass" and isinstance(case.body, dict):
        case.body["approver"] = "test-privacy"
    if "silent" in case.query:
        case.query |= {"silent": "0-40,60-80@0", "format": "wav"}
    if case.path.startswith(TUS):
        _put_upload_right(case)
    for name in DIGESTS:
        case.headers.pop(name, None)
    return "cursor" not in case.query and case.media_type != "multipart/form-data"


def _put_upload_right(case: Any) -> None:
    for name in ("Upload-Checksum", "Upload-Defer-Length", "Upload-Length", "Upload-Offset"):
        case.headers.pop(name, None)
    if case.method == "PATCH" or case.headers.get("X-HTTP-Method-Override") == "PATCH":
        case.headers["Upload-Offset"] = "0"
    elif case.method != "POST" or "X-HTTP-Method-Override" in case.headers:
        return
    else:
        case.headers.update(began())
    case.body, case.media_type = AUDIO, "application/offset+octet-stream"


def began() -> dict[str, str]:
    """The headers of an upload of a call that was not there before."""
    said = {"call_id": uuid4().hex, "call_type": "other", "started_at": now(hours=1)}
    told = ",".join(f"{name} {b64encode(text.encode()).decode()}" for name, text in said.items())
    return {"Upload-Length": str(len(AUDIO)), "Upload-Metadata": told}
