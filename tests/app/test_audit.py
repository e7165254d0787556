"""What an auditor does with an archive: export, verify, witness; and what notices a rewriting."""

import argparse
import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app import audit, hashing
from app.witness import Witness, WitnessError
from archive import merkle, tiles
from archive.ledger import Entry
from archive.note import Note, Verifier
from storage import ledger, nights, tree
from tests import years
from tests.jobs.test_expiry import a_year_ago
from tests.rewriting import export, rewrite_tree, unguarded
from tests.roles import connection
from tests.services import Service
from tests.storage.test_tree import write
from tests.web.test_listen import upload


@pytest.fixture(params=["here", "by another process"])
async def told(
    request: pytest.FixtureRequest,
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Service, Path]:
    """An archive that took calls in and erased one, and the export of its ledger, hashed so."""
    if request.param != "here":
        monkeypatch.setattr(hashing, "_LARGE", 0)
    for number in range(3):
        await upload(service, f"c{number}")
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    await service.turn_all_clocks(timedelta(seconds=40), monkeypatch)
    await service.erase()
    await service.night()
    return service, await export(service.vault, tmp_path / "ledger.txt")


async def test_an_export_holds(told: tuple[Service, Path]) -> None:
    service, path = told
    found = audit.verify_export(path, service.vault.signer.verifier, [], years.now())
    assert found["holds"], found["faults"]
    assert (found["stored"], found["erased"], found["nights"]) == (4, 1, 1)
    kept = service.vault.signer.last_note()
    assert kept
    await write(service.vault, *"abc")
    later = await export(service.vault, path.with_name("later"))
    found = audit.verify_export(later, service.vault.signer.verifier, [kept], years.now())
    assert found["holds"], found["faults"]


async def test_two_services_whose_nights_come_at_once_tell_one_story(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both reach the end of the night's work before either accounts for it."""
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    await service.turn_all_clocks(timedelta(seconds=40), monkeypatch)
    await service.erase()
    both, real = asyncio.Barrier(2), nights.record

    async def record(*told: Any) -> None:
        await both.wait()
        await real(*told)

    monkeypatch.setattr(nights, "record", record)
    await asyncio.gather(service.night(), service.night())
    path = await export(service.vault, tmp_path / "ledger.txt")
    found = audit.verify_export(path, service.vault.signer.verifier, [], years.now())
    assert found["faults"] == []
    assert (found["erased"], found["nights"]) == (1, 2)


def _line(number: int, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        lines = content.split(b"\n")
        lines[number] = change(lines[number])
        return b"\n".join(lines)

    return changed


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "a changed entry": _line(3, lambda line: line.replace(b'"act":"', b'"act":"x')),
    "one entry less": lambda content: content.split(b"\n", 1)[1],
    "one entry twice": lambda content: content.split(b"\n", 1)[0] + b"\n" + content,
    "two entries swapped": lambda content: b"\n".join(
        [*content.split(b"\n")[1::-1], *content.split(b"\n")[2:]]
    ),
    "another size": lambda content: re.sub(rb"\n\n(.*)\n\d+\n", rb"\n\n\1\n3\n", content),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_changed_export_does_not_hold(told: tuple[Service, Path], name: str) -> None:
    service, path = told
    path.write_bytes(CHANGES[name](path.read_bytes()))
    try:
        found = audit.verify_export(path, service.vault.signer.verifier, [], years.now())
    except ValueError:
        return
    assert not found["holds"]


async def test_a_cut_export_cannot_be_read(told: tuple[Service, Path]) -> None:
    service, path = told
    content = path.read_bytes()
    for cut in (b"", content[:200], content[: content.index(b"\n\n") + 1], content[:-40]):
        path.write_bytes(cut)
        with pytest.raises(ValueError):
            audit.verify_export(path, service.vault.signer.verifier, [], years.now())


async def test_a_rewriting_shows_against_a_checkpoint_that_was_kept(
    told: tuple[Service, Path],
) -> None:
    """Even when key and memory of the archive are in the rewriter's hands."""
    service, path = told
    key, kept = service.vault.signer.verifier, service.vault.signer.last_note()
    assert kept
    async with unguarded(service.vault) as lent:
        await lent.execute("UPDATE ledger SET actor = 'somebody' WHERE position = 2")
        await rewrite_tree(lent)
    (service.vault.spool.parent / "ring" / "ledger.checkpoint").unlink()
    await write(service.vault, "later")
    await export(service.vault, path)
    assert audit.verify_export(path, key, [], years.now())["holds"]
    found = audit.verify_export(path, key, [kept], years.now())
    assert not found["holds"]
    assert "does not go on" in str(found["faults"])


# The witness.


async def test_a_witness_keeps_what_goes_on_and_signs_it(service: Service, tmp_path: Path) -> None:
    witness = Witness.open(tmp_path / "state", service.vault.signer.verifier)
    sizes = []
    for count in (0, 3, 300, 5):
        await write(service.vault, *("x" for _ in range(count)))
        seen = await witness.visit(service.operations, service.tokens["auditor"])
        sizes.append((seen.before, seen.now.size))
    assert sizes[0][0] == 0
    assert all(before[1] == after[0] for before, after in pairwise(sizes))
    kept = Note.parse((tmp_path / "state" / "checkpoint").read_text())
    public = Verifier.parse((tmp_path / "state" / "witness.pub").read_text())
    value = kept.by(public).value
    signed = f"cosignature/v1\ntime {int.from_bytes(value[:8], 'big')}\n{kept.text}".encode()
    Ed25519PublicKey.from_public_bytes(public.public).verify(value[8:], signed)
    # Another process goes on where this one was.
    again = Witness.open(tmp_path / "state", service.vault.signer.verifier)
    assert again.verifier == witness.verifier
    assert again.last() == witness.last()


async def test_a_witness_refuses_a_ledger_that_stands_still(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who shows the same old checkpoint at each visit is found out after two days, not believed."""
    await write(service.vault, *"abc")
    witness = Witness.open(tmp_path / "state", service.vault.signer.verifier)
    token, real = service.tokens["auditor"], time.time
    seen = await witness.visit(service.operations, token)
    kept = (tmp_path / "state" / "checkpoint").read_bytes()
    for hours in (1, 25, 47.9):
        monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)  # noqa: B023
        assert (await witness.visit(service.operations, token)).now == seen.now
    for hours in (48, 1000):
        monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)  # noqa: B023
        with pytest.raises(WitnessError, match=f"for {hours} hours"):
            await witness.visit(service.operations, token)
    assert (tmp_path / "state" / "checkpoint").read_bytes() == kept
    await write(service.vault, "night.done")
    assert (await witness.visit(service.operations, token)).now.size == seen.now.size + 1
    assert (await witness.visit(service.operations, token)).now.size == seen.now.size + 1


async def test_a_checkpoint_that_the_witness_did_not_sign_is_refused(
    told: tuple[Service, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    service, path = told
    state = path.with_name("state")
    witness = Witness.open(state, service.vault.signer.verifier)
    await witness.visit(service.operations, service.tokens["auditor"])
    await export(service.vault, path)
    kept, bare, forged = state / "checkpoint", path.with_name("bare"), path.with_name("forged")
    note = Note.parse(kept.read_text())
    own, cosignature = note.signatures
    bare.write_text(str(replace(note, signatures=(own,))))
    wrong = replace(cosignature, value=cosignature.value[:-1] + bytes([cosignature.value[-1] ^ 1]))
    forged.write_text(str(replace(note, signatures=(own, wrong))))
    verify = audit._telling(audit._verify_ledger)

    async def status(key: object, *checkpoints: Path) -> int:
        asked = {"checkpoint": list(checkpoints), "witness": str(key) if key else None}
        known = str(service.vault.signer.verifier)
        return await verify(argparse.Namespace(file=path, key=known, json=False, **asked))

    assert await status(None, bare) == await status(None, forged) == 0
    assert await status(witness.verifier, kept) == await status(state / "witness.pub", kept) == 0
    for checkpoints, why in (
        ((bare,), "not signed by"),
        ((kept, forged), "not one of this checkpoint"),
        ((), "--checkpoint"),
    ):
        assert await status(witness.verifier, *checkpoints) == 1
        assert why in capsys.readouterr().err
    assert await status(service.vault.signer.verifier, kept) == 1
    assert "not the key of a witness" in capsys.readouterr().err
    other = Witness.open(path.with_name("other"), service.vault.signer.verifier)
    assert await status(other.verifier, kept) == 1


REWRITES = (
    "UPDATE ledger SET actor = 'nobody' WHERE position = 1",
    "DELETE FROM ledger WHERE position > 3",
)


@pytest.mark.parametrize("rewriting", REWRITES)
async def test_a_witness_notices_what_the_archive_itself_could_hide(
    service: Service, tmp_path: Path, rewriting: str
) -> None:
    await write(service.vault, *"abcdefgh")
    witness = Witness.open(tmp_path / "state", service.vault.signer.verifier)
    await witness.visit(service.operations, service.tokens["auditor"])
    before = (tmp_path / "state" / "checkpoint").read_bytes()
    async with unguarded(service.vault) as lent:
        await lent.execute(rewriting)
        await rewrite_tree(lent)
    (service.vault.spool.parent / "ring" / "ledger.checkpoint").unlink()
    for later in ((), ("x",) * 20):
        await write(service.vault, *later)
        with pytest.raises(WitnessError, match=r"rewritten|was cut"):
            await witness.visit(service.operations, service.tokens["auditor"])
        assert (tmp_path / "state" / "checkpoint").read_bytes() == before


async def test_a_witness_says_why_it_cannot_ask(service: Service, tmp_path: Path) -> None:
    witness = Witness.open(tmp_path / "state", service.vault.signer.verifier)
    with pytest.raises(WitnessError, match="401"):
        await witness.visit(service.operations, "nobody")
    with pytest.raises(WitnessError, match="cannot be asked"):
        await witness.visit("http://127.0.0.1:9", "x")
    other = Verifier("other", 1, bytes(32))
    with pytest.raises(ValueError, match="not signed by other"):
        stranger = Witness.open(tmp_path / "other", other)
        await stranger.visit(service.operations, service.tokens["auditor"])
    assert not (tmp_path / "state" / "checkpoint").exists()


async def test_of_two_visits_at_once_one_gives_way(service: Service, tmp_path: Path) -> None:
    """The slower would put the older checkpoint in the place of the newer."""
    await write(service.vault, *"abc")
    witness = Witness.open(tmp_path / "state", service.vault.signer.verifier)
    again = Witness.open(tmp_path / "state", service.vault.signer.verifier)
    came = await asyncio.gather(
        *(each.visit(service.operations, service.tokens["auditor"]) for each in (witness, again)),
        return_exceptions=True,
    )
    assert ["under way" in str(each) for each in came] == [False, True]
    assert (await again.visit(service.operations, service.tokens["auditor"])).before > 0


@pytest.fixture
async def liar(service: Service) -> AsyncIterator[str]:
    """An archive whose tiles are not those of its checkpoint."""

    async def answer(request: web.Request) -> web.Response:
        headers = {"Authorization": f"Bearer {service.tokens['auditor']}"}
        url = service.operations + request.path
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as got:
            body = await got.read()
        return web.Response(body=bytes(len(body)) if "tile" in request.path else body)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_witness_makes_the_proof_itself(
    service: Service, liar: str, tmp_path: Path
) -> None:
    await write(service.vault, *"abc")
    witness = Witness.open(tmp_path / "state", service.vault.signer.verifier)
    first = await witness.visit(liar, "")
    await write(service.vault, *"def")
    with pytest.raises(WitnessError, match="does not go on"):
        await witness.visit(liar, "")
    assert witness.last() == first.now


def test_a_witness_that_lost_its_key_does_not_begin_anew(service: Service, tmp_path: Path) -> None:
    state = tmp_path / "state"
    Witness.open(state, service.vault.signer.verifier)
    (state / "checkpoint").write_text("something")
    (state / "witness.key").unlink()
    with pytest.raises(WitnessError, match="restore it"):
        Witness.open(state, service.vault.signer.verifier)


async def test_what_is_published_is_what_was_done(service: Service) -> None:
    """The bundles of entries, as the tiles' format has them, give the ledger back."""
    await upload(service, "c1")
    await write(service.vault, *("x" for _ in range(300)))
    note = Note.parse(await (await service.operate("/v1/ledger/checkpoint")).text())
    size = int(note.text.split("\n")[1])
    texts: list[bytes] = []
    for number in range(-(-size // 256)):
        name = tiles.path(None, number, min(256, size - 256 * number))
        answer = await service.operate(f"/v1/ledger/tile/{name}")
        texts += tiles.unbundle(await answer.read())
    async with connection(service.vault.pool) as lent:
        entries = await ledger.page(lent, 0, size)
        assert merkle.growth_over(map(merkle.leaf_hash, texts)).root == (await tree.head(lent)).root
    assert [Entry.parse(number, text) for number, text in enumerate(texts)] == entries
