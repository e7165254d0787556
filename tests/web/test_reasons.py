"""Reasons: asked for before the audio of some call types, kept sealed, and good for an hour."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import yarl

from archive.listening import LONGEST, Rules
from storage import ledger, tree
from tests.roles import connection
from tests.services import Service, open_service
from tests.web.test_listen import upload
from tests.web.test_upload import problem

SAID = "Reklamaatio 4711, Åke"


@pytest.fixture
async def asking(vault: Any) -> Any:
    """The doors of an archive that asks for a reason before calls of contracts."""
    rules = Rules(reason_for=frozenset({"contract"}))
    async with open_service(replace(vault, listening=rules)) as opened:
        yield opened


async def give(
    service: Service, identifier: str, body: Any, token: str = "supervisor"
) -> aiohttp.ClientResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await service.session.post(
        f"{service.retrieval}/v1/recordings/{identifier}/reasons",
        data=data,
        headers=service._login(token),
    )


async def status(service: Service, identifier: str, token: str = "supervisor", **more: str) -> int:
    answer = await service.get(f"/v1/recordings/{identifier}/audio", token, **more)
    await answer.read()
    return answer.status


async def entries(service: Service, *acts: str) -> list[Any]:
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        return await lent.fetch(
            "SELECT * FROM ledger WHERE act = ANY ($1) ORDER BY position", [*acts]
        )


async def test_audio_of_such_a_call_needs_a_reason_first(asking: Service) -> None:
    contract = await upload(asking, "a", call_type="contract")
    other = await upload(asking, "b")
    path = f"/v1/recordings/{contract}"
    for audio in ("/audio", "/audio?format=wav", "/audio?format=mp3"):
        body = await problem(await asking.get(path + audio), 403, "reason-needed")
        assert body["reasons"] == f"{path}/reasons"
    head = f"{asking.retrieval}{path}/audio"
    assert (await asking.ask("HEAD", head, "supervisor")).status == 403
    assert await entries(asking, "listened") == []
    # What is no audio, of another type, or for another level needs none.
    for free in (path, f"{path}/waveform", f"/v1/recordings/{other}/audio"):
        assert (await asking.get(free)).status == 200
    assert await status(asking, contract, "privacy") == 200
    assert (await asking.ask("HEAD", head, "privacy")).status == 200
    answer = await give(asking, contract, {"reason": f"  {SAID} "})
    assert answer.status == 201
    assert (await answer.json()).keys() == {"recording", "until"}
    assert await status(asking, contract) == 200
    assert (await asking.ask("HEAD", head, "supervisor")).status == 200


async def test_a_reason_is_for_one_caller_and_one_recording_for_an_hour(asking: Service) -> None:
    one = await upload(asking, "a", call_type="contract")
    other = await upload(asking, "b", call_type="contract")
    second = await asking.key("supervisor", "second")
    assert (await give(asking, one, {"reason": SAID})).status == 201
    assert await status(asking, one) == 200
    assert await status(asking, other) == 403
    assert await status(asking, one, second) == 403
    await asking.turn_clock(timedelta(minutes=59))
    assert await status(asking, one) == 200
    await asking.turn_clock(timedelta(minutes=60, seconds=1))
    assert await status(asking, one) == 403
    assert (await give(asking, one, {"reason": SAID})).status == 201
    assert await status(asking, one) == 200


async def test_a_reason_can_come_with_the_request(asking: Service) -> None:
    one = await upload(asking, "a", call_type="contract")
    said = quote(SAID)
    assert await status(asking, one, Archive_Reason=said) == 200
    head = await asking.session.head(
        f"{asking.retrieval}/v1/recordings/{one}/audio",
        headers={**asking._login("supervisor"), "Archive-Reason": said},
    )
    assert head.status == 200
    # It is for that request alone.
    assert await status(asking, one) == 403
    for wrong in ("", "%20", "%FF", "a%0Ab", quote("x" * (LONGEST + 1))):
        assert await status(asking, one, Archive_Reason=wrong) == 400


async def test_a_reason_of_bytes_that_are_no_text_is_refused(asking: Service) -> None:
    one = await upload(asking, "a", call_type="contract")
    url = yarl.URL(asking.retrieval)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        f"GET /v1/recordings/{one}/audio HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {asking.tokens['supervisor']}\r\n".encode()
        + b"Archive-Reason: \xff\r\n\r\n"
    )
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"problem:malformed" in answer


async def test_a_reason_is_on_the_ledger_and_told_to_nobody(
    asking: Service, caplog: pytest.LogCaptureFixture
) -> None:
    one = await upload(asking, "a", call_type="contract")
    await give(asking, one, {"reason": SAID})
    await status(asking, one, Archive_Reason=quote(SAID))
    await status(asking, one)
    given, with_it, after = await entries(asking, "reason.given", "listened")
    assert [str(row["recording"]) for row in (given, with_it, after)] == [one] * 3
    for row in (given, with_it):
        opened = ledger.unseal(asking.vault.ring, row["ends_on"], row["details"])
        assert opened == {"reason": SAID}
        assert row["sealed"]
    assert after["sealed"] is None
    assert "4711" not in str([row["facts"] for row in (given, with_it, after)])
    assert "4711" not in await (await asking.operate("/v1/ledger")).text()
    assert "4711" not in caplog.text
    async with connection(asking.vault.pool) as lent:
        assert "4711" not in str(await lent.fetch("TABLE reason"))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"why"', {}, {"reason": ""}, {"reason": " "}, {"reason": 7},
     {"reason": "a\nb"}, {"reason": "x" * (LONGEST + 1)}, {"reason": "x" * 9000}, b"\xff"],
)  # fmt: skip
async def test_what_is_no_reason_opens_nothing(asking: Service, body: Any) -> None:
    one = await upload(asking, "a", call_type="contract")
    await problem(await give(asking, one, body), 400, "malformed")
    assert await status(asking, one) == 403


async def test_a_reason_opens_nothing_that_is_not_known(asking: Service) -> None:
    one = await upload(asking, "a", call_type="contract")
    limited = await asking.key("supervisor", "limited", ["other"])
    await problem(await give(asking, one, {"reason": SAID}, limited), 404, "not-found")
    assert await status(asking, one, limited, Archive_Reason=quote(SAID)) == 404
    for level in ("auditor", "admin", "uploader"):
        await problem(await give(asking, one, {"reason": SAID}, level), 403, "forbidden")
    assert await entries(asking, "reason.given", "listened") == []


async def test_reasons_that_are_over_are_forgotten(asking: Service) -> None:
    one = await upload(asking, "a", call_type="contract")
    other = await upload(asking, "b", call_type="contract")
    await give(asking, one, {"reason": SAID})
    await asking.turn_clock(timedelta(hours=2))
    await give(asking, other, {"reason": SAID})
    async with connection(asking.vault.pool) as lent:
        rows = await lent.fetch("SELECT recording FROM reason")
    assert [str(row["recording"]) for row in rows] == [other]


async def test_as_it_is_shipped_nobody_is_asked(service: Service) -> None:
    assert service.vault.listening == Rules()
    one = await upload(service, "a", call_type="contract")
    assert await status(service, one) == 200
