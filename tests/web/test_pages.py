"""The pages as they leave the doors, without a browser: what they hold, for whom, and what not."""

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest

from archive.listening import Rules
from storage import ledger
from storage.vault import Vault
from tests.roles import connection
from tests.services import Service, open_service, stop_clock
from tests.sounds import tone
from tests.web.browsing import Browser, signed_in
from tests.web.test_listen import ago, upload
from tests.web.test_upload import problem
from tools import catalogues
from web import cursors, face, words

STATIC = Path(face.__file__).parent / "static"
HTML = {"Accept": "text/html,application/xhtml+xml"}


async def look(
    service: Service, path: str, token: str = "supervisor", door: str = "retrieval", **more: Any
) -> tuple[aiohttp.ClientResponse, str]:
    """GET a page as a browser does, without going where it is led."""
    headers = {**HTML, **service._login(token), **more.pop("headers", {})}
    url = getattr(service, door) + path
    answer = await service.session.get(url, headers=headers, allow_redirects=False, **more)
    return answer, await answer.text()


async def search(
    service: Service, form: Mapping[str, str] | list[tuple[str, str]], token: str = "supervisor"
) -> tuple[str, str]:
    """Send the form as a script does; the address that it got, and the list."""
    answer = await service.session.post(
        service.retrieval + "/search",
        data=form,
        headers={**HTML, **service._login(token), "X-Part": "list"},
    )
    assert answer.status == 200
    return answer.headers["X-Address"], await answer.text()


def found(text: str) -> list[str]:
    """The recordings of a list, in its order."""
    return re.findall(r'href="/recordings/([0-9a-f-]+)"', text)


def test_no_text_lacks_a_translation() -> None:
    known = {(message.id, message.context) for message in catalogues.texts() if message.id}
    assert len(known) > 100
    for language in catalogues.LANGUAGES:
        catalogue = catalogues.read(language)
        translated = {(message.id, message.context): message for message in catalogue if message.id}
        assert translated.keys() == known
        for message in translated.values():
            source = message.id if isinstance(message.id, tuple) else (message.id,)
            said = message.string if isinstance(message.string, tuple) else (message.string,)
            assert len(said) == len(source)
            assert all(said), message.id
            assert not message.fuzzy
            for one in said:
                assert places(one) == places(source[-1]), one
                assert not re.search(r"[.!?][A-ZÅÄÖ]", one), "two texts run together"


def test_a_text_may_be_said_otherwise_in_one_place() -> None:
    said = words.words("sv")
    assert said.text("Call archive") == "Samtalsarkivet"
    assert said.pgettext("sign-in", "Call archive") == "Samtalsarkiv"
    assert words.words("en").pgettext("sign-in", "Call archive") == "Call archive"


def places(text: str) -> set[str]:
    return set(re.findall(r"%\(\w+\)s", text))


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        (None, "", "fi"),
        (None, "sv-FI,sv;q=0.9,en;q=0.8", "sv"),
        (None, "de, en;q=0.3, fi;q=0.7", "fi"),
        (None, "en;q=0, *;q=nonsense", "fi"),
        ("en", "sv", "en"),
        ("de", "en", "en"),
    ],
)
def test_the_language_is_chosen_or_else_the_browsers(
    cookie: str | None, accepted: str, language: str
) -> None:
    assert words.chosen(cookie, accepted) == language


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3723, "1:02:03")]
)
def test_lengths_are_written_as_players_do(seconds: float, text: str) -> None:
    assert words.length(seconds) == text


def test_a_first_load_is_small() -> None:
    names = json.loads((STATIC / "names.json").read_text())
    packed = {
        source: len(gzip.compress((STATIC / name).read_bytes(), 9))
        for source, name in names.items()
    }
    assert packed.keys() == {
        "search.js",
        "recording.js",
        "exports.js",
        "certificate.js",
        "page.css",
        "icon.svg",
    }
    assert max(size for name, size in packed.items() if name.endswith(".js")) <= 60_000
    assert packed["recording.js"] + packed["page.css"] <= 150_000 - 60_000, "and room for the page"


async def test_what_a_page_loads_is_kept_by_the_browser_for_ever(service: Service) -> None:
    for source, name in json.loads((STATIC / "names.json").read_text()).items():
        answer = await service.session.get(f"{service.retrieval}/static/{name}")
        assert answer.status == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["Content-Encoding"] == "gzip"
        assert await answer.read() == (STATIC / name).read_bytes()
        stem, _, ending = source.rpartition(".")
        assert re.fullmatch(rf"{stem}-[A-Z0-9]{{8}}\.{ending}", name)
    for other in ("names.json", "..%2Fface.py", "x.js"):
        answer = await service.session.get(f"{service.retrieval}/static/{other}")
        assert answer.status == 404


async def test_pages_say_what_a_browser_may_do(service: Service) -> None:
    identifier = await upload(service, "a")
    for door, path, token in (
        ("retrieval", "/", "supervisor"),
        ("retrieval", f"/recordings/{identifier}", "privacy"),
        ("operations", "/", "auditor"),
        ("retrieval", "/recordings/none", "supervisor"),
    ):
        answer, text = await look(service, path, token, door)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert "<style" not in text
        assert " style=" not in text
        assert not re.search(r" on\w+=", text)
        assert not re.search(r"https?:", text), "nothing is loaded from elsewhere"
        scripts = re.findall(r"<script[^>]*>", text)
        assert all("src=" in each or "application/json" in each for each in scripts)


async def test_a_search_finds_what_is_typed_in_whichever_field(service: Service) -> None:
    one = await upload(
        service, "a", caller="+358401234567", agent="Anna Ääkkönen", customer="C-9",
        started_at=ago(hours=3),
    )  # fmt: skip
    two = await upload(
        service, "b", caller="3201", agent="3201", contract="C-9", queue="c-9",
        started_at=ago(hours=2), call_type="contract",
    )  # fmt: skip
    for text, expected in (
        ("", [two, one]),
        ("040 123 4567", [one]),
        ("+358 (0)40-1234567", [one]),
        ("4567", [one]),
        ("3201", [two]),
        ("anna ääkkönen", [one]),
        ("agent:Anna Ääkkönen", [one]),
        ("customer:C-9", [one]),
        ("C-9", [two, one]),
        ("C-9 4567", [one]),
        ("4567 3201", []),
        ("a", [one]),
        ("1.1.2001", []),
    ):
        _, listed = await search(service, {"text": text})
        assert found(listed) == expected, text
    _, listed = await search(service, {"text": "C-9", "type.contract": "on"})
    assert found(listed) == [two]
    _, listed = await search(service, {"when": "own", "from": "2001-01-01", "to": "2001-01-02"})
    assert found(listed) == []
    _, listed = await search(service, {"when": "own", "from": "2001-01-01", "to": "x"})
    assert found(listed) == [two, one]


async def test_an_address_of_a_search_tells_nothing_and_serves_a_colleague(
    service: Service,
) -> None:
    one = await upload(service, "a", caller="+358401234567", agent="Anna")
    address, _ = await search(service, {"text": "0401234567 agent:Anna"})
    told = unquote(address)
    assert not any(part in told for part in ("4567", "Anna", "agent"))
    answer, text = await look(service, address, "privacy")
    assert answer.status == 200
    assert found(text) == [one]
    assert 'value="0401234567 agent:Anna"' in text
    answer, _ = await look(service, address[:-2] + "xx")
    assert answer.status == 400
    narrow = await service.key("supervisor", "narrow", call_types=["contract"])
    _, text = await look(service, address, narrow)
    assert found(text) == []


async def test_an_address_of_a_search_is_good_for_a_day(service: Service) -> None:
    one, other = [await upload(service, name, agent="Anna") for name in ("a", "b")]
    at = datetime.now(UTC)
    await stop_clock(service.vault, at)
    address, _ = await search(service, {"text": "Anna"})
    answer = await service.get("/v1/recordings?limit=1&agent=Anna")
    further = (await answer.json())["next"]
    await stop_clock(service.vault, at + cursors.AGE)
    answer, text = await look(service, address)
    assert set(found(text)) == {one, other}
    assert (await service.get(further)).status == 200
    await stop_clock(service.vault, at + cursors.AGE + timedelta(milliseconds=1))
    answer, text = await look(service, address)
    assert answer.status == 410
    assert "Tämä haku on liian vanha" in text
    assert "Anna" not in text
    await problem(await service.get(further), 400, "malformed")


async def test_without_a_script_the_form_leads_to_its_address(service: Service) -> None:
    one = await upload(service, "a", customer="C-9")
    headers = {**HTML, **service._login("supervisor")}
    answer = await service.session.post(
        service.retrieval + "/search",
        data={"text": "C-9"},
        headers=headers,
        allow_redirects=False,
    )
    assert answer.status == 303
    _, text = await look(service, answer.headers["Location"])
    assert found(text) == [one]


async def test_pages_of_a_list_follow_each_other(service: Service, monkeypatch: Any) -> None:
    monkeypatch.setattr("web.finding.PAGE", 2)
    ids = [
        await upload(
            service, f"c{number}", agent="C-1", queue="C-1", started_at=ago(hours=9 - number)
        )
        for number in range(5)
    ]
    for text in ("", "C-1"):
        _, listed = await search(service, {"text": text})
        seen = found(listed)
        while further := re.search(r'rel="next" href="([^"]+)"', listed):
            _, listed = await look(service, further[1])
            assert len(found(listed)) <= 2
            seen += found(listed)
        assert seen == ids[::-1], text


async def test_whoever_hears_a_page_is_told_of_older_calls(
    service: Service, monkeypatch: Any
) -> None:
    monkeypatch.setattr("web.finding.PAGE", 2)
    for number in range(3):
        await upload(service, f"c{number}", started_at=ago(hours=9 - number))
    _, listed = await search(service, {"text": ""})
    assert 'data-counted="Uusimmat 2 puhelua; vanhempia on lisää"' in listed
    monkeypatch.setattr("web.finding.PAGE", 3)
    _, listed = await search(service, {"text": ""})
    assert 'data-counted="3 puhelua, uusin ensin"' in listed


async def test_each_search_and_look_is_in_the_ledger(service: Service) -> None:
    identifier = await upload(service, "a", agent="Anna")
    await search(service, {"text": "Anna"})
    await look(service, "/")
    await look(service, f"/recordings/{identifier}")
    acts = [act for act, _ in await service.acts()]
    assert acts[-4:] == ["stored", "searched", "searched", "viewed"]
    async with connection(service.vault.pool) as lent:
        row = await lent.fetchrow("SELECT * FROM ledger WHERE act = 'searched' ORDER BY position")
    assert row is not None
    opened = ledger.unseal(service.vault.ring, row["ends_on"], row["details"])
    assert opened["anything"] == ["Anna"]
    assert "Anna" not in str(row["facts"])


async def test_only_who_may_read_gets_a_page(service: Service) -> None:
    identifier = await upload(service, "a")
    for path in ("/", f"/recordings/{identifier}"):
        for token, status in (("auditor", 403), ("uploader", 403), ("nobody", 401)):
            answer, text = await look(service, path, token)
            assert answer.status == status
            assert answer.content_type == "text/html"
            # It may say where one was, to lead back there, and nothing else of it.
            assert identifier not in text.replace(f'value="{path}"', "").replace(f"to={path}", "")
    for token, status in (("supervisor", 403), ("nobody", 401), ("admin", 200)):
        answer, _ = await look(service, "/", token, "operations")
        assert answer.status == status


async def test_machines_addresses_have_no_pages_whatever_is_accepted(service: Service) -> None:
    """Clients like urllib's and many a monitor accept HTML and follow where they are led."""
    there = ("/metrics", "/v1/expiry")
    asked = [(service.operations, path, 401) for path in there]
    asked += [(service.operations, "/v1/nothing", 404), (service.retrieval, "/metrics", 404)]
    for path in ("/", "/nothing", "/sign-in", "/v1/nothing", "/orktrack/command", "/page"):
        asked.append((service.ingest, path, 404))
    for path in ("/healthz", "/readyz", "/openapi.json"):
        asked.append((service.operations, path, 405))
    for door, path, status in asked:
        method = "POST" if status == 405 else "GET"
        answer = await service.session.request(
            method, door + path, headers=HTML, allow_redirects=False
        )
        assert (answer.status, answer.content_type) == (status, "application/problem+json"), path


async def test_errors_are_pages_for_people_and_documents_for_machines(service: Service) -> None:
    identifier = await upload(service, "a")
    await service.turn_clock(timedelta(days=367))
    answer, text = await look(service, f"/recordings/{identifier}")
    assert answer.status == 410
    assert f"/v1/certificates/{identifier}/page" in text
    answer, _ = await look(service, f"/v1/recordings/{identifier}")
    assert answer.content_type == "application/problem+json"
    answer = await service.get(f"/recordings/{identifier}")
    assert answer.content_type == "application/problem+json"
    answer, text = await look(service, "/nothing", headers={"Accept-Language": "sv"})
    assert answer.status == 404
    assert "Här finns inget" in text


async def test_what_is_sent_cannot_become_part_of_a_page(service: Service) -> None:
    evil = "\"><script>alert(1)</script>'{{7*7}}"
    identifier = await upload(service, evil, agent=evil, queue=evil, customer=evil)
    address, listed = await search(service, {"text": f'agent:"{evil[2:]}" {evil}'})
    _, page = await look(service, address)
    _, one = await look(service, f"/recordings/{identifier}?t={evil}")
    for text in (listed, page, one):
        assert "<script>alert" not in text
        assert "49" not in re.findall(r"&gt;[^<]*", text)
    assert "&lt;script&gt;" in one


async def test_preferences_are_kept_and_lead_nowhere_else(service: Service) -> None:
    url, ours = service.retrieval + "/preferences", {"Sec-Fetch-Site": "same-origin"}

    async def prefer(**form: Any) -> aiohttp.ClientResponse:
        return await service.session.post(url, data=form, allow_redirects=False, headers=ours)

    for theirs in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {}):
        answer = await service.session.post(url, data={"lang": "sv"}, headers=theirs)
        await problem(answer, 403, "forbidden")
        assert not answer.cookies

    answer = await prefer(lang="sv", theme="dark", shortcuts="off", columns="queue", back="/?q=x")
    assert answer.status == 303
    assert answer.headers["Location"] == "/?q=x"
    for cookie in answer.cookies.values():
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"
    headers = {"Cookie": "; ".join(f"{k}={c.value}" for k, c in answer.cookies.items())}
    _, text = await look(service, "/", headers=headers)
    assert '<html lang="sv" data-theme="dark">' in text
    assert "data-shortcuts" not in text
    assert text.count("<th scope") in (0, 3)
    for back in ("//evil.example", "/\\evil.example", "https://evil.example", "/\nx", ""):
        assert (await prefer(theme="light", back=back)).headers["Location"] == "/"
    assert (await prefer(theme="pink")).status == 400


async def test_preferences_that_cannot_be_read_are_no_fault_of_the_archive(
    service: Service,
) -> None:
    plain = "application/x-www-form-urlencoded"
    for kind, body in (
        (plain, b"lang=\xff"),
        (plain + "; charset=nonsense", b"lang=\xff"),
        ("multipart/form-data", b"lang=sv"),
        ("text/plain", b"lang=sv"),
    ):
        headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": kind}
        answer = await service.session.post(
            service.retrieval + "/preferences", data=body, headers=headers
        )
        await problem(answer, 400, "malformed")


async def test_several_columns_are_kept(service: Service) -> None:
    answer = await service.session.post(
        service.retrieval + "/preferences",
        data=[("columns", ""), ("columns", "queue"), ("columns", "caller")],
        headers={"Sec-Fetch-Site": "same-origin"},
        allow_redirects=False,
    )
    assert answer.cookies["columns"].value == "caller.queue"


async def test_who_heard_it_is_told_as_far_as_the_level_goes(service: Service) -> None:
    identifier = await upload(service, "a", tone(0.2))
    await service.key("supervisor", "Berta")
    for token in ("supervisor", "privacy"):
        answer = await service.get(f"/v1/recordings/{identifier}/audio", token)
        await answer.read()
    await service.get(f"/v1/recordings/{identifier}/waveform")
    _, text = await look(service, f"/recordings/{identifier}", headers={"Accept-Language": "en"})
    assert text.count("<bdi>You</bdi>") == 1
    assert text.count("<bdi>A colleague</bdi>") == 1
    assert "test-privacy" not in text
    _, text = await look(service, f"/recordings/{identifier}", "privacy")
    assert "test-supervisor" in text


async def test_what_expires_is_told_to_auditors(service: Service) -> None:
    await upload(service, "a", started_at=ago(days=100))
    await upload(service, "b", started_at=ago(days=100), call_type="contract")
    await service.night()
    headers = {"Accept-Language": "en"}
    _, text = await look(service, "/", "auditor", "operations", headers=headers)
    assert "2 fall due" in text
    assert "Signed checkpoint" in text
    (day,) = set(re.findall(r"day=([\d-]+)#day\" title=\"2 fall", text))
    _, text = await look(
        service, f"/?call_type=contract&day={day}", "auditor", "operations", headers=headers
    )
    assert "1 falls due" in text
    assert "Fault report</dt><dd>1 falls due" in text
    for wrong in ("?day=x", "?call_type=x", "?number=1"):
        answer, _ = await look(service, f"/{wrong}", "auditor", "operations")
        assert answer.status == 400


async def test_a_session_is_led_in_and_its_forms_carry_its_token(service: Service) -> None:
    await upload(service, "a", customer="C-9")
    browser = await signed_in(service, "supervisor")
    stranger = Browser(service, service.retrieval)
    answer = await stranger.get("/?q=x", **HTML)
    assert (answer.status, answer.headers["Location"]) == (303, "/sign-in?to=%2F%3Fq%3Dx")
    token = await browser.token("/")
    form = {"text": "C-9", "csrf": token}
    answer = await browser.ask("POST", "/search", form, X_Part="list", **HTML)
    assert answer.status == 200
    assert len(found(await answer.text())) == 1
    answer = await browser.ask("POST", "/search", {"text": "C-9"}, X_Part="list", **HTML)
    assert (answer.status, 'data-kind="other-session"' in await answer.text()) == (403, True)
    answer = await browser.ask("POST", "/sign-out", {"csrf": token})
    assert answer.status == 200
    assert (await browser.get("/", **HTML)).status == 303


async def test_where_a_reason_is_needed_the_page_asks_for_it_first(vault: Vault) -> None:
    rules = Rules(reason_for=frozenset({"contract"}))
    async with open_service(replace(vault, listening=rules)) as service:
        identifier = await upload(service, "a", call_type="contract")
        _, text = await look(service, f"/recordings/{identifier}")
        assert "<audio" not in text
        answer = await service.session.post(
            f"{service.retrieval}/recordings/{identifier}/reasons",
            data={"reason": "Reklamaatio"},
            headers={**HTML, **service._login("supervisor")},
        )
        assert answer.status == 200
        assert "<audio" in await answer.text()
        _, text = await look(service, f"/recordings/{identifier}", "privacy")
        assert "<audio" in text
