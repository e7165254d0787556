"""What a notice says, whatever its form."""

import json

import pytest

from archive import webhook


def test_a_form_and_json_become_the_same_table() -> None:
    document = {"a": "1", "b": {"c": ["x", {"d": True}]}, "n": None, "f": 1764000000.123456}
    told = {"a": "1", "b.c.0": "x", "b.c.1.d": "true", "f": "1764000000.123456"}
    assert webhook.read("json", json.dumps(document).encode()) == [told]
    assert webhook.read("json", json.dumps([document] * 2).encode()) == [told] * 2
    form = b"CallSid=CA1&From=%2B358401234567&Empty="
    fields = [{"CallSid": "CA1", "From": "+358401234567", "Empty": ""}]
    assert webhook.read("twilio", form) == fields
    assert webhook.read("telnyx", form, webhook.FORM) == fields


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"7", b'[{"a": 1}, 2]', b"[" * 100_000, b"\xff", b"[{}]" * 2,
     json.dumps([{}] * 101).encode(), json.dumps([[{}]]).encode()],
)  # fmt: skip
def test_what_is_no_notice_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^is "):
        webhook.read("json", body)


def test_a_notice_has_its_limits() -> None:
    deep: object = "x"
    for _ in range(30):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="nested too deeply"):
        webhook.read("json", json.dumps({"a": deep}).encode())
    with pytest.raises(ValueError, match="too many values"):
        webhook.read("json", json.dumps({str(n): "x" for n in range(6000)}).encode())
