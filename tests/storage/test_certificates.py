"""Certificates out of a real archive, checked three ways: by our code, by the command, and by the
verifier that shares nothing with either. And every lie about one.
"""

import argparse
import copy
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from app import audit
from archive import certificate, merkle
from archive.certificate import Certificate
from archive.ledger import instant
from archive.nights import root_over
from storage import ledger, signer, tree
from tests import years
from tests.jobs.test_expiry import a_year_ago
from tests.roles import connection
from tests.services import Service
from tests.web.test_listen import upload
from tests.web.test_upload import problem

VERIFIER = Path(__file__).parents[2] / "tools" / "verify_certificate.py"

CALL_ID = "call-needle"

NEVER = "/v1/certificates/019d2f6e-7c1a-7b44-9a55-0d6c3f5a1e02"

Raw = dict[str, Any]


@pytest.fixture
async def erased(service: Service, monkeypatch: pytest.MonkeyPatch) -> tuple[Service, str, Raw]:
    """A recording that was heard, erased, and whose day is closed; with its certificate."""
    for number in range(5):
        await upload(service, f"other-{number}")
    identifier = await upload(
        service, CALL_ID, started_at=a_year_ago(seconds=20), agent="Anna Needle"
    )
    await service.get(f"/v1/recordings/{identifier}/audio")
    await service.turn_all_clocks(timedelta(days=2), monkeypatch)
    await service.erase()
    await service.night()
    answer = await service.get(f"/v1/certificates/{identifier}", "privacy")
    assert answer.status == 200
    return service, identifier, await answer.json()


def check(service: Service, raw: Raw) -> certificate.Erasure:
    key = service.vault.signer.verifier
    content = json.dumps(raw).encode()
    return certificate.erasure(Certificate.parse(content), lambda note: signer.check(note, key))


def stand_alone(folder: Path, raw: object, key: str) -> "subprocess.CompletedProcess[str]":
    """The verifier as an auditor runs it: nothing of ours can be imported."""
    path = folder / "certificate.json"
    path.write_text(json.dumps(raw))
    return subprocess.run(
        [sys.executable, "-I", str(VERIFIER), str(path), key],
        cwd="/", capture_output=True, text=True, timeout=60,
    )  # fmt: skip


async def test_a_certificate_tells_the_whole_story_and_nothing_personal(
    erased: tuple[Service, str, Raw], tmp_path: Path
) -> None:
    service, identifier, raw = erased
    shown = check(service, raw)
    assert shown.recording == identifier
    assert shown.stored_at < shown.due <= shown.erased_at
    assert shown.closed_at
    assert shown.closed_at > shown.erased_at
    assert shown.rule == "P1Y Europe/Helsinki v1"
    assert [each["entry"]["act"] for each in raw["entries"]] == ["stored", "erased", "day.closed"]
    facts = raw["entries"][1]["entry"]["facts"]
    assert facts["absent"] == ["objects", "uploads"]
    # None of these can come up by chance among hexadecimal digits and base64.
    for needle in ("Anna Needle", CALL_ID, '"pbx"', "fault_report"):
        assert needle not in json.dumps(raw)
    said = stand_alone(tmp_path, raw, str(service.vault.signer.verifier))
    assert said.returncode == 0, said.stderr
    assert identifier in said.stdout
    # The same on the other reading door; and later, under more of the ledger.
    other = await service.operate(f"/v1/certificates/{identifier}")
    assert check(service, await other.json()) == shown


async def test_what_is_told_late_is_no_part_of_the_story(
    erased: tuple[Service, str, Raw],
) -> None:
    """A listen whose entry waited for its place while the recording was erased."""
    service, identifier, raw = erased
    async with connection(service.vault.pool) as lent:
        await ledger.record(lent, "k", "listened", recording=UUID(identifier))
    again = await (await service.get(f"/v1/certificates/{identifier}")).json()
    assert check(service, again) == check(service, raw)


async def test_until_the_bytes_are_gone_there_is_none(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = await upload(service, "c1", started_at=a_year_ago(seconds=20))
    path = f"/v1/certificates/{identifier}"
    await problem(await service.get(path), 404, "not-found")
    told = [await no_certificate(service, path)]
    await service.turn_all_clocks(timedelta(seconds=40), monkeypatch)
    gone = await service.get(f"/v1/recordings/{identifier}")
    body = await problem(gone, 410, "gone")
    assert body["certificate"] == path
    assert gone.headers["Link"] == f'<{path}>; rel="describedby"'
    await problem(await service.get(path), 404, "not-found")
    told += [await no_certificate(service, each) for each in (path, NEVER)]
    assert len({*told}) == 1, "which of these it is, nobody is told"
    assert "once its bytes are gone" in told[0]
    await service.erase()
    raw = await (await service.get(path)).json()
    shown = check(service, raw)
    assert shown.closed_at is None
    words = await (await service.get(f"{path}/page?lang=en")).text()
    assert "Not yet." in words


async def no_certificate(service: Service, path: str) -> str:
    """What a person is told in the place of a certificate's page."""
    page = await service.get(f"{path}/page?lang=en", Accept="text/html", Accept_Language="en")
    text = await page.text()
    assert (page.status, 'data-kind="no-certificate"' in text) == (404, True)
    return text.partition("<section")[2].partition("</section>")[0]


async def test_who_may_not_know_of_a_recording_gets_no_certificate(
    erased: tuple[Service, str, Raw],
) -> None:
    service, identifier, _ = erased
    limited = await service.key("supervisor", "limited", ["contract"])
    for suffix in ("", "/page"):
        path = f"/v1/certificates/{identifier}{suffix}"
        await problem(await service.get(path, limited), 404, "not-found")
        await problem(await service.get(path, "auditor"), 403, "forbidden")
        await problem(await service.operate(path, "supervisor"), 403, "forbidden")
        await problem(await service.ask("GET", service.ingest + path, "uploader"), 404, "not-found")
    await problem(await service.get(NEVER), 404, "not-found")


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("fi", "Tallenteen tunnus"),
        ("sv", "<dt>Raderad</dt>"),
        ("en", "The day&#x27;s key destroyed"),
    ],
)
async def test_the_page_is_for_the_person_who_asked(
    erased: tuple[Service, str, Raw], language: str, words: str
) -> None:
    service, identifier, _ = erased
    answer = await service.get(f"/v1/certificates/{identifier}/page?lang={language}")
    text = await answer.text()
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Language"] == language
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert f'<html lang="{language}">' in text
    for said in (words, identifier, str(service.vault.signer.verifier)):
        assert said in text
    assert "Anna" not in text


def _at(index: int, *path: str) -> Callable[[Raw, object], None]:
    def change(raw: Raw, value: object) -> None:
        inner = raw["entries"][index]
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value

    return change


LIES: list[tuple[Callable[[Raw, object], None], object]] = [
    (_at(1, "entry", "at"), "2027-01-01T00:00:00.000000Z"),
    (_at(1, "entry", "facts", "due"), "2020-01-01T00:00:00.000000Z"),
    (_at(1, "entry", "recording"), "019d2f6e-7c1a-7b44-9a55-0d6c3f5a1e02"),
    (_at(0, "entry", "actor"), "nobody"),
    (_at(1, "entry", "remark"), "nobody signed this"),
    (_at(1, "entry", "sealed"), ""),
    (_at(1, "position"), 0),
    (_at(1, "position"), 10**6),
    (_at(1, "position"), "1"),
    (_at(1, "position"), True),
    (_at(1, "proof"), []),
    (_at(2, "entry", "facts", "day"), "2020-01-01"),
    (lambda raw, _: raw["entries"].pop(0), None),
    (lambda raw, _: raw["entries"].append(raw["entries"][0]), None),
    (lambda raw, _: raw["entries"].clear(), None),
    (lambda raw, _: raw.update(checkpoint=raw["checkpoint"].replace("call-archive", "other")), 0),
    (lambda raw, _: raw.update(checkpoint=""), None),
    (lambda raw, _: raw.update(certificate="call-archive certificate 2"), None),
    (lambda raw, _: raw.pop("entries"), None),
]


def test_a_place_is_a_number_for_the_stand_alone_verifier_too() -> None:
    """In Python `True` is 1: to any other reader of JSON it is not."""
    in_tree = runpy.run_path(str(VERIFIER))["in_tree"]
    leaves = [merkle.leaf_hash(text) for text in (b"{}", b'{"a":1}')]
    root = merkle.growth_over(leaves).root
    assert in_tree({"a": 1}, 1, 2, leaves[:1], root)
    assert not in_tree({"a": 1}, True, 2, leaves[:1], root)


async def test_no_lie_about_a_certificate_holds(
    erased: tuple[Service, str, Raw], tmp_path: Path
) -> None:
    service, _, raw = erased
    key = str(service.vault.signer.verifier)
    for number, (change, value) in enumerate(LIES):
        lie = copy.deepcopy(raw)
        change(lie, value)
        with pytest.raises(ValueError):
            check(service, lie)
        said = stand_alone(tmp_path, lie, key)
        assert (said.returncode, said.stdout) == (1, ""), number
        assert "DOES NOT HOLD" in said.stderr
    for encoding in ("utf-16", "utf-8-sig"):  # JSON is UTF-8, for the other verifier as well
        with pytest.raises(certificate.CertificateError):
            Certificate.parse(json.dumps(raw).encode(encoding))
    for whole in (None, [], "x", {}):
        assert stand_alone(tmp_path, whole, key).returncode == 2
    for other in (key.replace("+", "+0", 1), "x", key[:-4] + "AAA="):
        assert stand_alone(tmp_path, raw, other).returncode == 2


async def test_what_was_erased_early_or_by_another_rule_is_told(service: Service) -> None:
    """The certificate is made all the same: it is checking it that says what happened."""
    identifier = await upload(service, "c1", started_at=a_year_ago(seconds=20))
    row = (await service.rows())[0]
    async with connection(service.vault.pool) as lent:
        late = {"due": row["expires_at"] + timedelta(days=1), "day": row["expires_on"]}
        facts = {**late, "due": f"{late['due'].astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"}
        facts = {**facts, "day": facts["day"].isoformat(), "rule": row["rule"]}
        await ledger.record(
            lent, ledger.SYSTEM, "erased", recording=row["id"], facts=facts
        )  # fmt: skip
    raw = await (await service.get(f"/v1/certificates/{identifier}")).json()
    with pytest.raises(certificate.CertificateError, match="`due` was another one"):
        check(service, raw)
    early = copy.deepcopy(raw)
    early["entries"][0]["entry"]["facts"] = early["entries"][1]["entry"]["facts"]
    with pytest.raises(certificate.CertificateError, match="not proven"):
        check(service, early)


async def kept_by(service: Service, rule: str, later: int = 0) -> Raw:
    """The certificate of what was kept for eight days and then erased, and came in by this rule,
    filed under a day so much later than that on which it is due.
    """
    identifier, due = uuid4(), years.now() + timedelta(days=8)
    day = due.astimezone(UTC).date() + timedelta(days=later)
    told = {"day": day.isoformat(), "due": instant(due), "rule": rule}
    async with connection(service.vault.pool) as lent:
        await ledger.record(lent, "k", "stored", recording=identifier, facts=told)
    await service.turn_clock(timedelta(days=9))
    async with connection(service.vault.pool) as lent:
        await ledger.record(lent, "k", "erased", recording=identifier, facts=told)
    answer = await service.get(f"/v1/certificates/{identifier}", "privacy")
    raw: Raw = await answer.json()
    return raw


@pytest.mark.parametrize(
    ("rule", "later", "why"),
    [
        ("P8D", 0, ""),
        ("P8D", 1, ""),
        ("P4D", 0, "longer than its rule"),
        ("for ever", 0, "cannot be read"),
        ("P8D", 3653, "another one than that of its due time"),
        ("P8D", -2, "another one than that of its due time"),
    ],
)
async def test_a_due_time_or_a_day_that_the_rule_does_not_give_is_no_lie_that_holds(
    service: Service, tmp_path: Path, rule: str, later: int, why: str
) -> None:
    """Both entries tell it, and the erasing kept to it: and it was kept for longer than it may; or
    the key of its day is.
    """
    raw, key = await kept_by(service, rule, later), str(service.vault.signer.verifier)
    said = stand_alone(tmp_path, raw, key)
    if not why:
        assert check(service, raw).rule == rule
        assert said.returncode == 0, said.stderr
        return
    with pytest.raises(certificate.CertificateError, match=why):
        check(service, raw)
    assert (said.returncode, why in said.stderr) == (1, True), said.stderr


async def test_the_page_of_a_certificate_that_does_not_hold_says_so(service: Service) -> None:
    identifier = await upload(service, "c1")
    async with connection(service.vault.pool) as lent:
        facts = await lent.fetchval("SELECT facts FROM told WHERE act = 'stored'")
        await ledger.record(lent, "k", "erased", recording=UUID(identifier), facts=facts)
    for language, words in (("fi", "ei osoita"), ("sv", "visar inte"), ("en", "does not show")):
        page = await service.get(f"/v1/certificates/{identifier}/page?lang={language}")
        text = await page.text()
        assert page.status == 200
        for said in (words, "erased before it was due", str(service.vault.signer.verifier)):
            assert said in text


async def test_a_night_is_accounted_for(
    erased: tuple[Service, str, Raw], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service, identifier, _ = erased
    today = service.vault.policy.day_of(years.now() + timedelta(days=2))
    answer = await service.operate(f"/v1/certificates/night/{today}")
    raw = await answer.json()
    key = service.vault.signer.verifier
    found = Certificate.parse(json.dumps(raw).encode())
    found.check(lambda note: signer.check(note, key))
    facts = found.entries[0].entry.facts
    assert (facts["due"], facts["erased"], facts["failed"]) == (1, 1, 0)
    assert facts["root"] == root_over([UUID(identifier)], []).hex()
    await _verified_offline(tmp_path, raw, str(key), capsys)
    await service.night()
    again = await (await service.operate(f"/v1/certificates/night/{today}")).json()
    assert [each["entry"]["facts"]["due"] for each in again["entries"]] == [1, 0]
    for day in ("2020-01-01", "x"):
        await problem(await service.operate(f"/v1/certificates/night/{day}"), 404, "not-found")


async def _verified_offline(
    folder: Path, raw: Raw, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command and by the verifier that stands alone; and both find a lie about it."""
    words = "1 recordings were due since the account before: 1 were erased, and 0 were not"
    said = stand_alone(folder, raw, key)
    assert (said.returncode, words in said.stdout) == (0, True), said.stderr
    path = folder / "certificate.json"
    asked = argparse.Namespace(file=path, key=key, json=False)
    verify = audit._telling(audit._verify_certificate)
    assert await verify(asked) == 0
    assert capsys.readouterr().out == said.stdout
    assert await verify(argparse.Namespace(file=path, key=key, json=True)) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [each["erased"] for each in facts["nights"]] == [1]
    for name, value in (("failed", 1), ("failed", -1), ("due", 0)):
        lie = copy.deepcopy(raw)
        lie["entries"][0]["entry"]["facts"][name] = value
        said = stand_alone(folder, lie, key)
        assert (said.returncode, said.stdout) == (1, "")
        assert await verify(asked) == 1
    twice = {**raw, "entries": [*raw["entries"], *raw["entries"]]}
    assert "twice" in stand_alone(folder, twice, key).stderr
    assert await verify(asked) == 1
    assert "twice" in capsys.readouterr().err


async def test_no_certificate_from_a_ledger_that_was_rewritten(
    erased: tuple[Service, str, Raw],
) -> None:
    service, identifier, _ = erased
    async with connection(service.vault.pool) as lent:
        await lent.execute("ALTER TABLE ledger DISABLE TRIGGER ALL")
        await lent.execute("UPDATE ledger SET at = at - interval '1 day' WHERE act = 'erased'")
        await lent.execute("ALTER TABLE ledger ENABLE TRIGGER ALL")
    raw = await (await service.get(f"/v1/certificates/{identifier}")).json()
    with pytest.raises(certificate.CertificateError, match="not proven"):
        check(service, raw)
    assert await tree.sequence(service.vault) == 0
