"""The list of a search as CSV: for a reason, on the ledger, only what may be known of, bounded."""

import asyncio
import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest

from archive import listing
from storage import credentials, ledger, search, tree
from tests.jobs.test_expiry import a_year_ago
from tests.roles import connection
from tests.services import Service
from tests.sounds import tone
from tests.web.browsing import hidden, signed_in
from tests.web.test_listen import ago, upload
from tests.web.test_upload import problem

WHY = "Reklamaatio 4711"


async def ask(
    service: Service, query: str = "", token: str = "supervisor", reason: str | None = WHY
) -> aiohttp.ClientResponse:
    said = {} if reason is None else {"Archive_Reason": quote(reason)}
    return await service.get(f"/v1/recordings.csv{query}", token, **said)


async def rows(answer: aiohttp.ClientResponse) -> list[dict[str, str]]:
    text = (await answer.read()).decode("utf-8-sig")
    assert answer.status == 200, text
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def listed(service: Service) -> list[Any]:
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        return await lent.fetch("SELECT * FROM ledger WHERE act = 'listed' ORDER BY position")


async def filled(service: Service) -> None:
    sound = tone(0.3)
    for number, queue in enumerate(("north", "south", "north")):
        started = ago(hours=9 - number)
        caller = f"04012345{number}0"
        await upload(service, f"c{number}", sound, queue=queue, caller=caller, started_at=started)


async def test_a_list_is_what_the_search_finds(service: Service, monkeypatch: Any) -> None:
    monkeypatch.setattr(search, "MOST", 1)  # so that there are several pages
    await filled(service)
    answer = await ask(service)
    assert answer.headers["Content-Type"].startswith("text/csv; charset=utf-8")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="calls.csv"'
    assert answer.headers["Cache-Control"] == "private, no-store"
    found = await rows(answer)
    assert [row["call_id"] for row in found] == ["c2", "c1", "c0"]
    assert found[0]["caller"] == "'+358401234520"
    assert [row["call_id"] for row in await rows(await ask(service, "?queue=south"))] == ["c1"]
    assert await rows(await ask(service, "?queue=none")) == []
    limited = await service.key("supervisor", "limited", queues=["north"])
    assert [row["call_id"] for row in await rows(await ask(service, "", limited))] == ["c2", "c0"]


async def test_a_list_has_a_reason_and_is_told_of_once(service: Service, monkeypatch: Any) -> None:
    monkeypatch.setattr(search, "MOST", 1)
    await filled(service)
    for reason in (None, "", "a\nb", "x" * 501):
        await problem(await ask(service, reason=reason), 400, "malformed")
    for query in ("?agnet=x", "?limit=5", "?cursor=x"):
        await problem(await ask(service, query), 400, "malformed")
    for level in ("auditor", "admin", "uploader"):
        await problem(await ask(service, token=level), 403, "forbidden")
    assert await listed(service) == []
    await rows(await ask(service, "?queue=north"))
    [entry] = await listed(service)
    assert entry["actor"] == service.tokens["supervisor"].split("_")[1]
    assert "4711" not in str(dict(entry["facts"]))
    opened = ledger.unseal(service.vault.ring, entry["ends_on"], entry["details"])
    assert (opened["reason"], opened["sealed"]) == (WHY, {"queue": "north"})


async def test_a_list_that_comes_to_its_bound_says_so(service: Service, monkeypatch: Any) -> None:
    await filled(service)
    monkeypatch.setattr(listing, "MOST", 3)
    assert [row["call_id"] for row in await rows(await ask(service))] == ["c2", "c1", "c0"]
    monkeypatch.setattr(listing, "MOST", 2)
    found = await rows(await ask(service))
    assert [row["call_id"] for row in found[:2]] == ["c2", "c1"]
    assert found[2]["id"].startswith("more:")
    assert len(found) == 3


async def test_a_right_that_is_lost_meanwhile_ends_the_list(
    service: Service, monkeypatch: Any
) -> None:
    monkeypatch.setattr(search, "MOST", 1)
    await filled(service)
    token = await service.key("supervisor", "leaving")
    real = search._page

    async def page(*args: Any) -> Any:
        found = await real(*args)
        if found.items[0].call.call_id == "c1":
            async with connection(service.vault.pool) as lent:
                await lent.execute(
                    "UPDATE access_key SET queues = ARRAY['north'] WHERE name = 'leaving'"
                )
        return found

    monkeypatch.setattr(search, "_page", page)
    answer = await ask(service, "", token)
    with pytest.raises(aiohttp.ClientError):
        await answer.read()
    answer.close()


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_a_list_that_is_being_sent_ends_with_the_right_and_with_its_calls(
    service: Service, monkeypatch: Any, end: str
) -> None:
    """Nothing more is found meanwhile: it is the watch over what was sent that ends it."""
    monkeypatch.setattr(search, "MOST", 1)
    await filled(service)
    for name in ("first", "second"):
        await upload(service, name, started_at=a_year_ago(seconds=60))
    token = await service.key("supervisor", "leaving")
    found, ends = asyncio.Event(), asyncio.Event()
    real = search._page

    async def page(*args: Any) -> Any:
        if found.is_set():
            await ends.wait()
        found.set()
        return await real(*args)

    monkeypatch.setattr(search, "_page", page)
    await service.turn_clock(timedelta(seconds=60) - timedelta(seconds=5))
    old = datetime.now(UTC) - timedelta(days=300)
    query = f"?to={old:%Y-%m-%dT%H:%M:%SZ}" if end == "expired" else "?queue=north"
    answer = await ask(service, query, token)
    assert answer.status == 200
    assert await answer.content.readany()
    if end == "revoked":
        async with connection(service.vault.pool) as lent:
            await credentials.revoke(lent, "leaving")
    with pytest.raises(aiohttp.ClientError):
        await asyncio.wait_for(answer.read(), 20)
    answer.close()
    ends.set()


async def test_the_head_of_a_list_has_no_list_behind_it(service: Service) -> None:
    await filled(service)
    target = urlsplit(service.retrieval)
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    key, why = service.tokens["supervisor"], quote(WHY)
    writer.write(
        f"HEAD /v1/recordings.csv HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
        f"Archive-Reason: {why}\r\nConnection: close\r\n\r\n".encode()
    )
    head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200")
    assert rest == b""


async def test_the_page_saves_what_it_shows(service: Service) -> None:
    await filled(service)
    browser = await signed_in(service)
    token = hidden(await (await browser.get("/")).text(), "csrf")
    sent = {"csrf": token, "text": "queue:south"}
    address = (await browser.ask("POST", "/search", sent)).headers["Location"]
    q = hidden(await (await browser.get(address)).text(), "q")
    answer = await browser.ask("POST", "/search/csv", {"csrf": token, "q": q, "reason": WHY})
    body = await answer.read()
    assert body.startswith(b"\xef\xbb\xbf"), "spreadsheets read UTF-8 by its mark"
    assert [row["call_id"] for row in await rows(answer)] == ["c1"]
    for sent in ({"q": q}, {"q": q, "reason": " "}, {"reason": WHY}):
        answer = await browser.ask("POST", "/search/csv", {"csrf": token, **sent})
        assert answer.status == 400
    assert (await browser.ask("POST", "/search/csv", {"q": q, "reason": WHY})).status == 403
    assert len(await listed(service)) == 1
