"""The auditors' search of the ledger: what it finds, in which order, and what it costs."""

import ast
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from archive.ledger import Wanted
from storage import database, ledger, tree
from storage.vault import Vault
from tests.needles import WRONG
from tests.roles import acting, connection
from tests.services import Faulty, Service
from tests.web.test_listen import upload
from tests.web.test_pages import look
from web.acts import ACTS

ROOT = Path(__file__).parents[2]
ENGLISH = {"Accept-Language": "en"}


async def page(service: Service, query: str = "", **more: Any) -> str:
    """The page of a search that is answered."""
    answer, text = await look(
        service, f"/ledger{query}", "auditor", "operations", headers=ENGLISH, **more
    )
    assert answer.status == 200
    return text


def positions(text: str) -> list[int]:
    """The entries of a page, in its order."""
    return [int(each) for each in re.findall(r"Position</span> (\d+)</th>", text)]


async def entries(service: Service) -> list[dict[str, Any]]:
    answer = await service.operate("/v1/ledger?limit=1000")
    return list((await answer.json())["items"])


async def test_each_way_to_look_finds_what_the_ledger_has(service: Service) -> None:
    one, two = [await upload(service, name, agent="Anna") for name in ("a", "b")]
    for identifier in (one, two, one):
        await (await service.get(f"/v1/recordings/{identifier}/audio")).read()
    await service.get("/v1/recordings?agent=Anna")
    told = await entries(service)
    today = service.vault.policy.day_of(datetime.now(UTC))
    days = f"from={today - timedelta(days=1)}&to={today + timedelta(days=1)}"
    ways = {
        "": lambda each: True,
        "?act=listened": lambda each: each["act"] == "listened",
        f"?recording={one}": lambda each: each["recording"] == one,
        f"?recording={one.upper()}&act=listened": lambda each: (
            each["recording"] == one and each["act"] == "listened"
        ),
        "?position=0": lambda each: each["position"] == 0,
        "?position=999": lambda each: False,
        f"?{days}": lambda each: True,
        f"?{days}&act=searched": lambda each: each["act"] == "searched",
        f"?to={today - timedelta(days=1)}": lambda each: False,
        f"?from={today + timedelta(days=1)}": lambda each: False,
        "?act=&from=&to=&recording=&position=": lambda each: True,
    }
    for query, inside in ways.items():
        wanted = [each["position"] for each in told if inside(each)]
        text = await page(service, query)
        assert positions(text) == wanted[::-1], query
        assert ("No entry is found." in text) is (wanted == [])
    text = await page(service, "?act=searched")
    assert "with details that are sealed" in text
    assert "Anna" not in text


async def test_what_was_just_done_is_found(service: Service) -> None:
    identifier = await upload(service, "a")
    text = await page(service, f"?recording={identifier}")
    assert text.count("<code>stored</code>") == 1


async def test_days_are_those_of_the_archive(service: Service) -> None:
    zone = service.vault.policy.zone
    moments = [
        datetime(2026, 3, 1, 23, 59, 59, 999_999, zone),
        datetime(2026, 3, 2, 0, 0, tzinfo=zone),
        datetime(2026, 3, 2, 23, 59, 59, 999_999, zone),
        datetime(2026, 3, 3, 0, 0, tzinfo=zone),
    ]
    async with connection(service.vault.pool) as lent:
        for moment in moments:
            await lent.execute(
                "INSERT INTO ledger_waiting (at, actor, act) VALUES ($1, 'system', 'test')", moment
            )
    await tree.sequence(service.vault)
    first = next(each["position"] for each in await entries(service) if each["act"] == "test")
    for query, wanted in (
        ("?from=2026-03-02&to=2026-03-02", [first + 2, first + 1]),
        ("?from=2026-03-01&to=2026-03-01", [first]),
        ("?to=2026-03-02", [first + 2, first + 1, first]),
    ):
        assert positions(await page(service, query)) == wanted


async def test_pages_follow_each_other_newest_first(service: Service, monkeypatch: Any) -> None:
    monkeypatch.setattr("web.ledger_pages.PAGE", 3)
    now = datetime.now(UTC)
    async with connection(service.vault.pool) as lent:
        for minutes in (5, 3, 3, 4, 3, 9, 1):  # a long transaction's entry comes after newer ones
            await lent.execute(
                "INSERT INTO ledger_waiting (at, actor, act) VALUES ($1, 'system', 'viewed')",
                now - timedelta(minutes=minutes),
            )
    told = [each for each in await entries(service) if each["act"] == "viewed"]
    wanted = sorted(told, key=lambda each: (each["at"], each["position"]), reverse=True)
    text, seen = await page(service, "?act=viewed"), []
    while True:
        seen += positions(text)
        further = re.search(r'rel="next" href="/ledger([^"]+)"', text)
        if further is None:
            break
        assert "act=viewed" in further[1]
        text = await page(service, further[1].replace("&amp;", "&"))
    assert seen == [each["position"] for each in wanted]
    assert len(seen) == 7


@pytest.mark.parametrize("field", ["act", "from", "to", "recording", "position", "before"])
async def test_what_cannot_be_looked_for_is_told_and_not_repeated(
    service: Service, field: str
) -> None:
    await upload(service, "a")
    answer, text = await look(
        service, f"/ledger?{field}={WRONG}", "auditor", "operations", headers=ENGLISH
    )
    assert answer.status == 400
    assert positions(text) == []
    # It may say where one was, to lead back there, and nothing else of it.
    assert WRONG not in text.replace(f'value="/ledger?{field}={WRONG}"', "")
    if field != "before":
        assert f'id="{field}-fault"' in text
        assert text.count("aria-invalid") == 1
    answer, _ = await look(service, f"/ledger?{field}=1&{field}=2", "auditor", "operations")
    assert answer.status == 400
    answer, text = await look(service, f"/ledger?x={WRONG}", "auditor", "operations")
    assert answer.status == 400


async def test_long_facts_are_cut_and_lead_to_the_whole_entry(service: Service) -> None:
    async with connection(service.vault.pool) as lent:
        await ledger.record(lent, ledger.SYSTEM, "unheard.of", facts={"why": "<b>" + "x" * 999})
    text = await page(service)
    assert "<code>unheard.of</code>" in text
    assert "why: &lt;b&gt;xxx" in text
    assert "x" * 401 not in text
    (at,) = re.findall(r'href="/v1/ledger\?from=(\d+)&amp;limit=1"', text)
    answer = await service.operate(f"/v1/ledger?from={at}&limit=1")
    assert (await answer.json())["items"][0]["facts"]["why"].endswith("x" * 999)


async def test_what_was_erased_leads_to_its_certificate(service: Service) -> None:
    identifier = UUID(await upload(service, "a"))
    async with connection(service.vault.pool) as lent:
        await ledger.record(lent, ledger.SYSTEM, "erased", recording=identifier)
    text = await page(service, "?act=erased")
    assert f'href="/v1/certificates/{identifier}"' in text
    assert f'href="/v1/certificates/{identifier}/page?lang=en"' in text


_CALLS = {"record": (2,), "Matter": (0, 1), "Act": (0,), "act": (1,), "_mark": (2,), "_tell": (1,)}
"""What writes an act down, and which of its arguments is one."""

_SQL = re.compile(r"INSERT INTO ledger_waiting[^;]*?SELECT [^,]+, '([a-z_.]+)'")


def written() -> set[str]:
    """Each act that the code names where it writes one down."""
    found = {"stored", "rebuilt", "object.damaged", "object.mended", "key.person", "account.person"}
    for folder in ("storage", "jobs", "web"):
        for path in (ROOT / folder).rglob("*.py"):
            tree_of = ast.parse(path.read_text("utf-8"))
            for node in ast.walk(tree_of):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= set(_SQL.findall(node.value))
                if not isinstance(node, ast.Call):
                    continue
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                for place in _CALLS.get(name, ()):
                    if len(node.args) > place and isinstance(node.args[place], ast.Constant):
                        found.add(str(node.args[place].value))  # type: ignore[attr-defined]
    return found


def test_every_act_has_words() -> None:
    acts = written()
    assert len(acts) > 50
    assert acts <= ACTS.keys()
    assert ACTS.keys() <= acts, "and no word is of an act that nobody does"


MANY = 60_000
RECORDING = UUID(int=7)

DAYS = {
    "since": datetime(2026, 3, 2, tzinfo=UTC),
    "until": datetime(2026, 3, 3, tzinfo=UTC),
}
LONG_AGO = {"since": datetime(2026, 1, 1, tzinfo=UTC), "until": datetime(2026, 2, 1, tzinfo=UTC)}

LOOKS = {
    "everything": Wanted(),
    "further": Wanted(before=MANY // 2),
    "an act": Wanted(act="viewed"),
    "a rare act": Wanted(act="key.added"),
    "an act that never was": Wanted(act="key.revoked"),
    "a day": Wanted(**DAYS),
    "a month long ago": Wanted(**LONG_AGO),
    "an act of a day": Wanted(act="viewed", **DAYS),
    "a rare act of a month": Wanted(act="key.added", **LONG_AGO),
    "further of an act": Wanted(act="viewed", before=MANY // 3),
    "a recording": Wanted(recording=RECORDING),
    "an act of a recording": Wanted(recording=RECORDING, act="viewed"),
    "a recording in a month": Wanted(recording=RECORDING, **LONG_AGO),
    "a position": Wanted(position=MANY - 3),
    "a position and more": Wanted(position=MANY - 3, act="viewed", **DAYS),
}

NOTHING = {"an act that never was", "a position and more"}


@pytest.fixture
async def large(vault: Vault) -> Vault:
    """A ledger of many entries of a year, whose tree is not asked for."""
    async with connection(vault.pool) as lent:
        await lent.execute(
            "INSERT INTO ledger (position, at, actor, act, recording, facts)"
            " SELECT n, timestamptz '2026-01-01T00:00Z' + n * interval '9 minutes', 'system',"
            " CASE WHEN n % 6000 = 0 THEN 'key.added'"
            " ELSE (ARRAY['stored', 'viewed', 'searched'])[n % 3 + 1] END,"
            " CASE WHEN n % 7 < 6 THEN lpad(to_hex(n / 10), 32, '0')::uuid END,"
            " jsonb_build_object('day', '2027-01-01') FROM generate_series(0, $1::bigint - 1) n",
            MANY,
        )
        await lent.execute("ANALYZE ledger")
    return vault


async def test_a_search_reads_little_of_a_large_ledger(large: Vault) -> None:
    asked: list[tuple[str, Any]] = []

    async def fetch(statement: str, *values: Any) -> Any:
        asked.append((statement, values))
        return await lent.fetch(statement, *values)

    pool = acting(large, "operations").pool
    async with database.connection(pool) as lent:
        spy: Any = Faulty(lent, fetch=fetch)
        for name, wanted in LOOKS.items():
            found = await ledger.find(spy, wanted, 51)
            assert bool(found) is (name not in NOTHING), name
            statement, values = asked.pop()
            explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}"
            ((plan,),) = await lent.fetch(explain, *values)
            told = json.loads(plan)[0]["Plan"]
            assert "Seq Scan" not in plan, name
            blocks = told["Shared Hit Blocks"] + told["Shared Read Blocks"]
            assert blocks < 120, (name, blocks)
        pages = await lent.fetchval("SELECT pg_relation_size('ledger') / 8192")
        assert pages > 600, "reading all of it would be noticed"
