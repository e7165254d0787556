"""Redaction on the real doors: what was made silent is silent by every route, and the rest is not
touched; who may take it back; and both objects end with the recording.
"""

import array
import asyncio
import io
import json
import wave
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import av
import pytest

from archive.errors import UnavailableError
from storage import early, redactions, removal
from storage.upkeep import reconcile
from tests.jobs.test_expiry import TOMBSTONE, a_year_ago
from tests.roles import change, connection
from tests.services import Faulty, Service
from tests.sounds import tone
from tests.storage import soundfiles
from tests.storage.test_early import ask
from tests.web.test_allowance import LONG, listening, quickly, rest
from tests.web.test_listen import ago, upload
from tests.web.test_upload import problem
from web import allowance

__all__ = ["quickly"]

CARD = [{"start": 1200, "stop": 2400}]
"""Where somebody says a number, in milliseconds."""

SOUNDS = {
    "wav": lambda: soundfiles.wav(soundfiles.tone(4)),
    "stereo": lambda: soundfiles.wav(soundfiles.tone(4, channels=2), channels=2),
    "44.1 kHz": lambda: soundfiles.wav(soundfiles.tone(4, rate=44100), rate=44100),
    "mp3": lambda: soundfiles.mp3(4),
    "opus": lambda: soundfiles.opus(4, 2),
    "flac": lambda: soundfiles.encoded("flac", "flac", soundfiles.tone(4)),
    "g711": lambda: soundfiles.wav(b"\x55\xd5\x2a\xaa" * 8000, tag=soundfiles.ALAW, bits=8),
}


def one(identifier: str, rest: str = "") -> str:
    return f"/v1/recordings/{identifier}{rest}"


async def redact(
    service: Service, identifier: str, spans: Any, token: str = "supervisor", why: str = "a card"
) -> Any:
    """PUT the spans; the answer."""
    return await service.session.put(
        service.retrieval + one(identifier, "/redaction"),
        json={"spans": spans, "reason": why},
        headers={"Authorization": f"Bearer {service.tokens.get(token, token)}"},
    )


async def redacted(service: Service, identifier: str, spans: Any = CARD, **more: str) -> None:
    answer = await redact(service, identifier, spans, **more)
    assert answer.status == 201, await answer.text()


async def withdraw(
    service: Service, identifier: str, token: str = "privacy", why: str | None = "a%20mistake"
) -> Any:
    headers = {"Authorization": f"Bearer {service.tokens[token]}"}
    if why is not None:
        headers["Archive-Reason"] = why
    return await service.session.delete(
        service.retrieval + one(identifier, "/redaction"), headers=headers
    )


async def erased(service: Service) -> tuple[int, int]:
    """Erase what is due by the database's clock; how many were, and how many are still there."""
    outcome = await removal.erase(service.vault, await removal.claim(service.vault))
    return len(outcome.erased), len(outcome.still_there)


async def body(service: Service, path: str, token: str = "supervisor", **headers: str) -> bytes:
    answer = await service.get(path, token, **headers)
    assert answer.status in (200, 206), await answer.text()
    return await answer.read()


def lanes(content: bytes) -> tuple[int, list[Sequence[int]]]:
    """The rate of a WAV and the samples of each of its channels."""
    with wave.open(io.BytesIO(content)) as file:
        assert file.getsampwidth() == 2
        channels, rate = file.getnchannels(), file.getframerate()
        samples = array.array("h", file.readframes(file.getnframes()))
    return rate, [samples[each::channels] for each in range(channels)]


def loudest(content: bytes, start: float, stop: float) -> int:
    """The loudest sample between two seconds, of whatever is sent."""
    most, at = 0, 0.0
    with av.open(io.BytesIO(content)) as opened:
        for frame in opened.decode(audio=0):
            for plane in frame.planes:
                most = max(most, _loud(frame, bytes(plane), at, start, stop))
            at += frame.samples / frame.sample_rate
    return most


def _loud(frame: Any, plane: bytes, at: float, start: float, stop: float) -> int:
    wide = frame.layout.nb_channels if frame.format.is_packed else 1
    values: Sequence[float]
    if "flt" in frame.format.name:
        values = [each * 32768 for each in array.array("f", plane)]
    else:
        values = array.array("h", plane)
    first = max(int((start - at) * frame.sample_rate), 0) * wide
    last = max(int((stop - at) * frame.sample_rate), 0) * wide
    return max((abs(int(each)) for each in values[: frame.samples * wide][first:last]), default=0)


async def test_what_is_marked_is_silent_and_the_rest_is_the_same(service: Service) -> None:
    for kind in SOUNDS:
        await _is_silent_and_else_the_same(service, kind)


async def _is_silent_and_else_the_same(service: Service, kind: str) -> None:
    identifier = await upload(service, kind, SOUNDS[kind]())
    before = await body(service, one(identifier, "/audio?format=wav"))
    peaks = json.loads(await body(service, one(identifier, "/waveform?points=400")))
    spans = [{"start": 1200, "stop": 2400}, {"start": 3001, "stop": 3007}]
    heard_before = await body(
        service, one(identifier, "/audio?format=wav&silent=1200-2400,3001-3007")
    )
    await redacted(service, identifier, spans)
    after = await body(service, one(identifier, "/audio"))
    assert after == heard_before, "what is kept is what was heard before it was kept"
    assert len(after) == len(before)
    (rate, old), (same, new) = lanes(before), lanes(after)
    assert (rate, len(old)) == (same, len(new))
    for lane, was in zip(new, old, strict=True):
        expected = list(was)
        for span in spans:
            first, last = span["start"] * rate // 1000, -(-span["stop"] * rate // 1000)
            assert any(was[first:last])
            expected[first:last] = [0] * (last - first)
        assert list(lane) == expected
    drawn = json.loads(await body(service, one(identifier, "/waveform?points=400")))
    assert drawn["duration"] == peaks["duration"]
    for lane, was in zip(drawn["channels"], peaks["channels"], strict=True):
        assert set(lane[121:239]) == {0}
        assert lane[:119] == was[:119]
        assert lane[241:299] == was[241:299]


async def test_one_channel_alone_can_be_made_silent(service: Service) -> None:
    identifier = await upload(service, "c1", SOUNDS["stereo"]())
    _, before = lanes(await body(service, one(identifier, "/audio")))
    await redacted(service, identifier, [{"start": 1200, "stop": 2400, "channel": 1}])
    _, after = lanes(await body(service, one(identifier, "/audio")))
    assert after[0] == before[0]
    assert not any(after[1][9600:19200])
    assert after[1][:9600] + after[1][19200:] == before[1][:9600] + before[1][19200:]


async def test_by_no_route_a_supervisor_reaches_what_is_silent(service: Service) -> None:
    for kind in ("wav", "mp3", "opus"):
        await _is_reached_by_no_route(service, kind)


async def _is_reached_by_no_route(service: Service, kind: str) -> None:
    audio = SOUNDS[kind]()
    moment = ago(minutes={"wav": 3, "mp3": 2, "opus": 1}[kind])
    identifier = await upload(service, kind, audio, started_at=moment)
    original = await (await service.get(one(identifier))).json()
    was = await body(service, one(identifier, "/audio"))
    assert was == audio
    await redacted(service, identifier)
    path = one(identifier, "/audio")
    for form in ("", "?format=wav", "?format=mp3", "?format=ogg", "?format=wav&silent=0-100"):
        content = await body(service, path + form)
        # Compressed, it begins up to 0.15 s later, and its edges are not sharp.
        assert loudest(content, 1.5, 2.1) <= 2, (kind, form)
        assert loudest(content, 2.8, 3.6) > 1000, (kind, form)
    size = len(await body(service, path))
    for form in ("", "?format=wav"):
        part = await body(service, path + form, Range=f"bytes={44 + size // 3}-{size // 2}")
        assert not any(part)
    # Nothing that the original's tag or its range would get: they are not known any more.
    etag = f'"{original["sha256"]}"'
    answer = await service.get(path, Range="bytes=0-9", If_Range=etag)
    assert answer.status == 200
    for points in (1, 7, 400, 2000):
        drawn = json.loads(await body(service, one(identifier, f"/waveform?points={points}")))
        assert all(
            peak == 0
            for lane in drawn["channels"]
            for peak in lane[-(-13 * points // 40) : 23 * points // 40]
        )
    for method, where in [
        ("GET", "/audio"), ("HEAD", "/audio"), ("GET", "/waveform"), ("GET", ""), ("HEAD", ""),
    ]:  # fmt: skip
        for more in ("", "&format=wav"):
            url = service.retrieval + one(identifier, f"{where}?version=original{more}")
            refused = await service.ask(method, url, "supervisor")
            assert refused.status == 403
    await problem(await service.get(path + "?version=original"), 403, "forbidden")
    # And nothing tells of the original by its digest, its length or its form.
    now = await (await service.get(one(identifier))).json()
    listed = (await (await service.get("/v1/recordings")).json())["items"][0]
    head = await service.ask("HEAD", service.retrieval + path, "supervisor")
    assert now == listed
    assert (now["redacted"], now["container"], now["codec"]) == (True, "wav", "pcm_s16le")
    assert now["bytes"] == size == int(head.headers["Content-Length"])
    page = await (await service.get(f"/recordings/{identifier}", Accept="text/html")).text()
    for text in (json.dumps([now, listed]), str(head.headers), page):
        assert original["sha256"] not in text
    assert now["duration"] == original["duration"]


async def test_privacy_hears_what_everybody_hears_and_the_original_when_asked(
    service: Service,
) -> None:
    audio = soundfiles.mp3(4)
    identifier = await upload(service, "c1", audio)
    original = await (await service.get(one(identifier))).json()
    await redacted(service, identifier)
    path = one(identifier, "/audio")
    assert await body(service, path, "privacy") == await body(service, path)
    assert await body(service, path + "?version=original", "privacy") == audio
    shown = await (await service.get(one(identifier, "?version=original"), "privacy")).json()
    assert shown == original
    drawn = await body(service, one(identifier, "/waveform?version=original&points=9"), "privacy")
    assert all(json.loads(drawn)["channels"][0])
    await problem(await service.get(path + "?version=other", "privacy"), 400, "malformed")
    async with connection(service.vault.pool) as lent:
        facts = await lent.fetch(
            "SELECT facts FROM ledger_waiting WHERE act IN ('listened', 'viewed')"
            " UNION ALL SELECT facts FROM ledger WHERE act IN ('listened', 'viewed')"
        )
    assert [row["facts"].get("version") for row in facts].count("original") == 3


async def test_who_hears_it_may_add_and_privacy_alone_may_take_back(service: Service) -> None:
    identifier = await upload(service, "c1", tone(4, channels=2))
    where = one(identifier, "/redaction")
    await problem(await service.get(where), 404, "not-found")
    assert (await withdraw(service, identifier)).status == 404
    await redacted(service, identifier, why="kortti 4111")
    told = await (await service.get(where)).json()
    assert told["spans"] == CARD
    assert told["reason"] == "kortti 4111"
    for less in (
        [{"start": 1201, "stop": 2400}],
        [{"start": 1200, "stop": 2399}],
        [{"start": 1200, "stop": 2400, "channel": 0}],
        [{"start": 0, "stop": 1200}, {"start": 1300, "stop": 4000}],
    ):
        await problem(await redact(service, identifier, less), 403, "forbidden")
    assert (await withdraw(service, identifier, "supervisor")).status == 403
    await problem(await withdraw(service, identifier, why=None), 400, "malformed")
    more = [
        {"start": 900, "stop": 1500},
        {"start": 1400, "stop": 2400, "channel": 0},
        {"start": 1500, "stop": 2500, "channel": 1},
        {"start": 3000, "stop": 99999},
    ]
    await redacted(service, identifier, more)
    assert (await (await service.get(where)).json())["spans"] == [
        {"start": 900, "stop": 1500},
        {"start": 1400, "stop": 2400, "channel": 0},
        {"start": 1500, "stop": 2500, "channel": 1},
        {"start": 3000, "stop": 4000},
    ]
    await redacted(service, identifier, [{"start": 0, "stop": 10}], token="privacy")
    assert (await withdraw(service, identifier)).status == 204
    assert await body(service, one(identifier, "/audio")) == tone(4, channels=2)
    await problem(await service.get(where), 404, "not-found")
    acts = [act for act, _ in await service.acts() if act.startswith("redaction")]
    assert acts == ["redaction.made"] * 3 + ["redaction.withdrawn"]
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch(
            "SELECT facts, ends_on FROM ledger WHERE act LIKE 'redaction.%' ORDER BY position"
        )
        sealed = await lent.fetch("SELECT * FROM recording")
    assert all(row["ends_on"] for row in rows), "the reason is kept, sealed"
    assert [set(row["facts"]) - {"copy"} for row in rows] == [
        {"parts"}, {"parts", "replaced"}, {"parts", "replaced"}, set(),
    ]  # fmt: skip
    assert "4111" not in str([dict(row["facts"]) for row in rows]) + str(sealed)


NO_PARTS: list[Any] = [
    None, [], {}, "1-2", [[1, 2]], [{"start": 1}], [{"start": -1, "stop": 5}],
    [{"start": 5, "stop": 5}], [{"start": 4000, "stop": 5000}], [{"start": 1.5, "stop": 9}],
    [{"start": True, "stop": 9}], [{"start": 1, "stop": 9, "channel": 1}],
    [{"start": 1, "stop": 9, "channel": "0"}], [{"start": 1, "stop": 2}] * 101,
]  # fmt: skip


async def test_what_is_no_part_of_it_is_refused(service: Service) -> None:
    identifier = await upload(service, "c1", tone(4))
    for spans in NO_PARTS:
        await problem(await redact(service, identifier, spans), 422, "invalid")
    for text in ("", "1", "5-1", "1-2,", "1-2@1", "0x1-9", "9999-99999"):
        path = one(identifier, f"/audio?format=wav&silent={text}")
        await problem(await service.get(path), 422, "invalid")
    await problem(await service.get(one(identifier, "/audio?silent=1-2")), 400, "malformed")
    assert "redaction.made" not in [act for act, _ in await service.acts()]


async def test_ranges_of_what_is_heard_before_fit_together(service: Service) -> None:
    identifier = await upload(service, "c1", soundfiles.mp3(4))
    path = one(identifier, "/audio?format=wav&silent=500-900,1200-2400")
    whole = await body(service, path)
    for start, stop in ((0, 100), (8000, 20000), (len(whole) - 9, len(whole))):
        part = await body(service, path, Range=f"bytes={start}-{stop - 1}")
        assert part == whole[start:stop]
    other = await service.get(one(identifier, "/audio?format=wav&silent=1-2"))
    assert other.headers["ETag"] != (await service.get(path)).headers["ETag"]


async def test_both_objects_go_with_the_recording_and_the_certificate_names_both(
    service: Service,
) -> None:
    identifier = await upload(service, "gone", tone(4), started_at=a_year_ago(seconds=200))
    await redacted(service, identifier)
    assert len(await service.holdings()) == 2
    await service.turn_clock(timedelta(seconds=210))
    for part in ("", "/audio", "/redaction", "/waveform"):
        await problem(await service.get(one(identifier, part)), 410, "gone")
    await problem(await redact(service, identifier, CARD, "privacy"), 410, "gone")
    [row] = await service.rows()
    assert await erased(service) == (1, 0)
    assert await service.holdings() == []
    [left] = await service.rows()
    assert {name for name, value in left.items() if value is not None} == TOMBSTONE
    answer = await service.get(f"/v1/certificates/{identifier}")
    entries = (await answer.json())["entries"]
    facts = next(each["entry"]["facts"] for each in entries if each["entry"]["act"] == "erased")
    assert (facts["attempt"], facts["redacted"]) == (str(row["attempt"]), str(row["redacted"]))


async def test_a_copy_that_the_store_still_shows_is_not_called_erased(service: Service) -> None:
    identifier = await upload(service, "gone", tone(4), started_at=a_year_ago(seconds=200))
    await redacted(service, identifier)
    await service.turn_clock(timedelta(seconds=210))
    [row] = await service.rows()
    real = service.vault.objects

    async def remove(holdings: Any) -> Any:
        kept = [each for each in holdings if each.key.endswith(str(row["redacted"]))]
        return kept + await real.remove([each for each in holdings if each not in kept])

    change(service.vault, "objects", Faulty(real, remove=remove))
    assert await erased(service) == (0, 1)
    change(service.vault, "objects", real)
    await service.end_leases()
    assert await erased(service) == (1, 0)
    assert await service.holdings() == []


async def test_of_two_at_once_one_stands_and_nothing_is_left_over(service: Service) -> None:
    identifier = await upload(service, "c1", tone(4))
    spans = [[{"start": start, "stop": start + 100}] for start in (0, 1000, 2000)]
    answers = await asyncio.gather(*(redact(service, identifier, each) for each in spans))
    statuses = sorted(answer.status for answer in answers)
    # Who comes after the other sees that less would be silent then.
    assert statuses.count(201) == 1, statuses
    assert set(statuses) <= {201, 403, 409, 503}
    await swept(service)
    assert len(await service.holdings()) == 2
    report = await reconcile.run(service.vault, repair=True)
    assert (report.failed, report.objects, report.removed) == (False, 2, 0)


async def swept(service: Service) -> None:
    """Collect what is left over, as if all leases were over, twice."""
    for _ in range(2):
        async with connection(service.vault.pool) as lent:
            await lent.execute(
                "UPDATE redaction_attempt SET lease_until = archive_now() - interval '1 second'"
            )
        await redactions.collect(service.vault, 100_000)
    async with connection(service.vault.pool) as lent:
        assert await lent.fetchval("SELECT count(*) FROM redaction_attempt") == 0


async def test_a_copy_that_is_replaced_or_withdrawn_is_removed(service: Service) -> None:
    identifier = await upload(service, "c1", tone(4))
    await redacted(service, identifier)
    await redacted(service, identifier, [{"start": 0, "stop": 3000}])
    assert len(await service.holdings()) == 3
    await redactions.collect(service.vault, 100)
    assert len(await service.holdings()) == 2
    await withdraw(service, identifier)
    await redactions.collect(service.vault, 100)
    [holding] = await service.holdings()
    [row] = await service.rows()
    assert holding.key.endswith(str(row["attempt"]))
    await swept(service)


async def test_a_store_that_does_not_say_that_it_has_the_copy(service: Service) -> None:
    identifier = await upload(service, "c1", tone(4))
    real = service.vault.objects

    async def put(*what: Any) -> None:
        await real.put(*what)
        raise UnavailableError("The object store does not answer.")

    change(service.vault, "objects", Faulty(real, put=put))
    assert (await redact(service, identifier, CARD)).status == 503
    change(service.vault, "objects", real)
    assert await body(service, one(identifier, "/audio")) == tone(4)
    again = await redact(service, identifier, CARD)
    assert again.status == 503, "until what was sent can land no more"
    assert int(again.headers["Retry-After"]) > 20
    await swept(service)
    assert len(await service.holdings()) == 1
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE recording SET redacting_until = archive_now()")
    await redacted(service, identifier)


async def test_a_recording_whose_year_ends_while_it_is_redacted(service: Service) -> None:
    identifier = await upload(service, "gone", tone(4), started_at=a_year_ago(seconds=400))
    real = service.vault.objects

    async def put(*what: Any) -> None:
        await service.turn_clock(timedelta(seconds=500))
        assert await erased(service) == (1, 0)
        await real.put(*what)  # and it lands behind the erasure

    change(service.vault, "objects", Faulty(real, put=put))
    await problem(await redact(service, identifier, CARD), 410, "gone")
    change(service.vault, "objects", real)
    assert len(await service.holdings()) == 1
    await redactions.collect(service.vault, 100)
    assert await service.holdings() == []
    assert "redaction.made" not in [act for act, _ in await service.acts()]


async def test_what_has_too_little_time_left_is_not_redacted(service: Service) -> None:
    """So that no copy is on its way when it is due, and the erasing never waits for one."""
    identifier = await upload(service, "gone", tone(4), started_at=a_year_ago(seconds=60))
    await problem(await redact(service, identifier, CARD), 409, "changed")
    assert len(await service.holdings()) == 1
    await service.turn_clock(timedelta(seconds=61))
    assert await erased(service) == (1, 0)


async def test_an_early_erasure_waits_for_a_copy_that_is_on_its_way(service: Service) -> None:
    identifier = await upload(service, "c1", tone(4))
    real = service.vault.objects
    waited = []

    async def put(*what: Any) -> None:
        await ask(service, identifier, "privacy")
        waited.append((await ask(service, identifier, "admin")).outcome.erased)
        await real.put(*what)

    change(service.vault, "objects", Faulty(real, put=put))
    await redacted(service, identifier)
    change(service.vault, "objects", real)
    assert waited == [[]]
    assert len((await early.run(service.vault)).erased) == 1
    assert await service.holdings() == []


async def test_what_is_being_heard_stops_when_a_part_of_it_becomes_silent(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowance, "LOOK", 0.05)
    async with listening(service, tone(LONG)) as reader:
        identifier = str((await service.rows())[0]["id"])
        await redacted(service, identifier)
        await asyncio.sleep(0.5)  # the sender is held meanwhile: nobody reads
        assert await rest(reader) < len(tone(LONG)) - 1_000_000


async def test_a_scope_holds_for_redaction_as_for_hearing(service: Service) -> None:
    identifier = await upload(service, "c1", tone(4))
    other = await service.key("supervisor", "other", ["contract"])
    await problem(await redact(service, identifier, CARD, other), 404, "not-found")
    await problem(await service.get(one(identifier, "/redaction"), other), 404, "not-found")
    hidden = await service.key("privacy", "hidden", ["contract"])
    service.tokens["hidden"] = hidden
    assert (await withdraw(service, identifier, "hidden")).status == 404
    for level in ("uploader", "auditor", "admin"):
        assert (await redact(service, identifier, CARD, level)).status == 403


async def test_the_ledger_is_whole_with_it(service: Service) -> None:
    identifier = await upload(service, "c1", tone(4))
    await redacted(service, identifier)
    await withdraw(service, identifier)
    about = [act for act, each in await service.acts() if each == identifier]
    assert about == ["stored", "redaction.made", "redaction.withdrawn"]
