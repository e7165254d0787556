"""The auditors' check of a certificate on a page: what it says of a true one, and of every lie."""

import asyncio
import copy
import io
import json
import logging
import re
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from archive import certificate
from archive.access import Level
from storage import signer
from storage.signer import Signer
from tests.needles import WRONG
from tests.roles import connection
from tests.services import Service
from tests.storage.test_certificates import LIES, Raw, erased, kept_by
from tests.web.browsing import Browser, signed_in
from tests.web.test_pages import HTML
from tests.web.test_upload import problem
from web import checking

__all__ = ["erased"]

NAME = "filename-needle-77.json"


def sent(content: bytes, token: str = "", *, after: bool = False) -> aiohttp.FormData:
    """The form of the page with a file in it; `after`: the token stands behind the file."""
    form = aiohttp.FormData()
    if token and not after:
        form.add_field("csrf", token)
    form.add_field(
        "certificate", io.BytesIO(content), filename=NAME, content_type="application/json"
    )
    if token and after:
        form.add_field("csrf", token)
    return form


async def checked(
    service: Service, content: bytes | Raw, language: str = "en", **more: Any
) -> tuple[int, str]:
    """The status and the page for a file."""
    file = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = {**HTML, "Accept-Language": language, **service._login("auditor")}
    answer = await service.session.post(
        service.operations + "/certificate", data=sent(file), headers=headers, **more
    )
    return answer.status, await answer.text()


def steps(text: str) -> list[str]:
    """Whether each check held, in their order."""
    return re.findall(r'<li class="(held|failed)">', text)


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("fi", ["Todistus pätee", "Sen tarkistuspiste on allekirjoitettu", "Tallenne poistettu"]),
        ("sv", ["Intyget håller", "Dess kontrollpunkt är signerad", "Inspelning raderad"]),
        ("en", ["The certificate holds", "Its checkpoint is signed", "Recording erased"]),
    ],
)
async def test_a_true_certificate_holds_and_every_check_is_told(
    erased: tuple[Service, str, Raw], language: str, words: list[str]
) -> None:
    service, identifier, raw = erased
    status, text = await checked(service, raw, language)
    assert status == 200
    for said in (*words, identifier, str(service.vault.signer.verifier)):
        assert said in text
    # Signed, three entries proven, and five checks of what they tell.
    assert steps(text) == ["held"] * 9
    origin, _, root, *_ = raw["checkpoint"].split("\n")
    assert origin in text
    assert root.replace("+", "&#43;") in text or root in text


async def test_no_lie_holds_and_the_check_that_failed_is_the_last(
    erased: tuple[Service, str, Raw],
) -> None:
    service, _, raw = erased
    key = service.vault.signer.verifier
    kinds = []
    for number, (change, value) in enumerate(LIES):
        lie = copy.deepcopy(raw)
        change(lie, value)
        verdict = checking.judge(json.dumps(lie).encode(), key)
        kinds.append(verdict.kind)
        assert verdict.kind in ("fails", "foreign", "broken"), number
        assert verdict.certificate is None
        with pytest.raises(ValueError) as raised:
            certificate.erasure(
                certificate.Certificate.parse(json.dumps(lie).encode()),
                lambda note: signer.check(note, key),
            )
        if verdict.kind != "foreign":
            assert verdict.said == str(raised.value)[:300], "the same words as the verifier's"
    assert set(kinds) == {"fails", "foreign", "broken"}


async def test_what_failed_is_named(erased: tuple[Service, str, Raw]) -> None:
    service, identifier, raw = erased
    lie = copy.deepcopy(raw)
    lie["entries"][1]["entry"]["at"] = "2027-01-01T00:00:00.000000Z"
    status, text = await checked(service, lie)
    assert status == 200
    assert "The certificate does not hold" in text
    assert steps(text) == ["held", "held", "failed"]
    failed = text.partition('class="failed"')[2].partition("</li>")[0]
    assert "This entry stands in the signed ledger" in failed
    assert "Recording erased" in failed
    assert "The entry `erased` is not proven" in text
    assert identifier not in text
    unsigned = copy.deepcopy(raw)
    head, size, rest = raw["checkpoint"].split("\n", 2)
    unsigned["checkpoint"] = f"{head}\n{int(size) + 1}\n{rest}"
    _, text = await checked(service, unsigned)
    assert steps(text) == ["failed"]
    short = copy.deepcopy(raw)
    del short["entries"][0]
    _, text = await checked(service, short)
    assert steps(text) == ["held", "held", "held", "failed"]
    assert "It has the entries of one erasure, and no others" in text


@pytest.mark.parametrize("rule", ["P4D", "for ever"])
async def test_what_was_kept_for_too_long_is_not_told_as_erased_too_early(
    service: Service, rule: str
) -> None:
    raw = await kept_by(service, rule)
    for language, words in (
        ("en", "It was due by its rule"),
        ("fi", "Sen määräaika oli säännön mukainen"),
        ("sv", "Den förföll enligt sin regel"),
    ):
        _, text = await checked(service, raw, language)
        assert steps(text)[-1] == "failed"
        failed = text.partition('class="failed"')[2].partition("</li>")[0]
        assert words in failed


async def test_one_of_another_archive_is_told_apart(
    erased: tuple[Service, str, Raw], tmp_path: Any
) -> None:
    service, _, raw = erased
    (tmp_path / "other").mkdir()
    other = Signer.open(tmp_path / "other", "call-archive/other", create=True).verifier
    content = json.dumps(raw).encode()
    assert checking.judge(content, other).kind == "foreign"
    foreign = {**raw, "checkpoint": raw["checkpoint"].replace("call-archive", "their-archive")}
    status, text = await checked(service, foreign)
    assert status == 200
    assert "This is not a certificate of this archive" in text
    assert steps(text) == []


async def test_the_account_of_a_night_holds(erased: tuple[Service, str, Raw]) -> None:
    service, _, raw = erased
    at = raw["entries"][2]["entry"]["at"]
    day = service.vault.policy.day_of(datetime.fromisoformat(at))
    answer = await service.operate(f"/v1/certificates/night/{day}")
    assert answer.status == 200
    night = await answer.json()
    status, text = await checked(service, night)
    assert status == 200
    assert "The certificate holds" in text
    assert "1 due, 1 erased, 0 failed" in text
    night["entries"][0]["entry"]["facts"]["failed"] = 1
    _, text = await checked(service, night)
    assert "The certificate does not hold" in text


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 422, "No file was chosen"),
        (b" \n", 422, "No file was chosen"),
        (b"RIFF\xff\x00WAVE", 422, "This is not the file of a certificate"),
        (b"{" * 90_000, 422, "This is not the file of a certificate"),
        (b"[" * 90_000, 422, "This is not the file of a certificate"),
        (b"[]", 422, "This cannot be read as a certificate"),
        (b'{"certificate": "call-archive certificate 1"}', 422, "a part of a certificate is miss"),
        (b"9" * checking.MOST, 422, "This is not the file of a certificate"),
        (b" " * checking.MOST + b"{}", 413, "This file is too large"),
        (b"x" * 3_000_000, 413, "This file is too large"),
    ],
)
async def test_what_is_no_certificate_is_told_clearly(
    service: Service, content: bytes, status: int, words: str
) -> None:
    found, text = await checked(service, content)
    assert found == status
    assert words in text
    assert 'type="file"' in text, "another can be chosen at once"


async def test_only_a_form_with_a_file_is_looked_at(service: Service) -> None:
    url, login = service.operations + "/certificate", service._login("auditor")
    for data in ({"certificate": "{}"}, b"{}", None):
        answer = await service.session.post(url, data=data, headers=login)
        await problem(answer, 400, "malformed")
    form = aiohttp.FormData()
    form.add_field("other", b"{}", filename=NAME)
    await problem(await service.session.post(url, data=form, headers=login), 400, "malformed")
    broken = {**login, "Content-Type": "multipart/form-data; boundary=x"}
    answer = await service.session.post(url, data=b"--x\r\n", headers=broken)
    await problem(answer, 400, "malformed")


async def test_nothing_of_a_file_is_kept(
    service: Service, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    caplog.set_level(logging.DEBUG, "archive")
    acts = await service.acts()
    for content in (
        json.dumps({"certificate": "call-archive certificate 1", "entries": [WRONG]}).encode(),
        WRONG.encode() * 100_000,
        json.dumps({"certificate": WRONG}).encode(),
        WRONG.encode(),
    ):
        _, text = await checked(service, content)
        assert NAME not in text
        assert WRONG not in text
    assert await service.acts() == acts
    assert WRONG not in caplog.text
    assert NAME not in caplog.text
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or WRONG.encode() not in path.read_bytes()
    async with connection(service.vault.pool) as lent:
        assert await lent.fetchval("SELECT count(*) FROM ledger_waiting") == 0


async def post(browser: Browser, form: aiohttp.FormData, **headers: str) -> int:
    answer = await browser.ask("POST", "/certificate", form, **HTML, **headers)  # type: ignore[arg-type]
    return answer.status


async def test_the_form_of_a_session_carries_its_token_ahead_of_the_file(service: Service) -> None:
    browser = await signed_in(service, "aud", Level.AUDITOR)
    token = await browser.token("/certificate")
    assert await post(browser, sent(b"[]", token)) == 422
    assert await post(browser, sent(b"[]")) == 403
    assert await post(browser, sent(b"[]", token[:-1] + "x")) == 403
    assert await post(browser, sent(b"[]", token, after=True)) == 403
    assert await post(browser, sent(b"[]", "x" * 10_000)) == 403
    assert await post(browser, sent(b"[]", token), Origin="https://evil.example") == 403
    assert await post(browser, sent(b"x" * 3_000_000, token)) == 413
    stranger = Browser(service, service.operations)
    assert await post(stranger, sent(b"[]", token)) == 401


async def test_a_form_that_does_not_arrive_is_given_up(service: Service, monkeypatch: Any) -> None:
    monkeypatch.setattr("web.parts._SILENCE", 0.2)

    async def slowly() -> Any:
        yield b"--x\r\nContent-Disposition: form-data; name=certificate\r\n\r\n{"
        await done.wait()

    done = asyncio.Event()
    headers = {**service._login("auditor"), "Content-Type": "multipart/form-data; boundary=x"}
    answer = await service.session.post(
        service.operations + "/certificate", data=slowly(), headers=headers
    )
    await problem(answer, 400, "malformed")
    done.set()
