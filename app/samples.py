"""Sample calls for a first look: a handful of recordings, one key per level, and who may sign in.

They are taken in through the ingest door like any other. Keys and passwords are kept in files of
the data directory, so that they can be shown again: this is for trial only, and `archive serve`
alone never does it.
"""

import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp

from app.config import Config
from app.keys import keyed
from app.remote import Remote
from archive.access import Level
from storage import accounts, credentials, durable
from storage.credentials import KeyRefusedError


async def offer(folder: Path, config: Config, ingest: str) -> None:
    """At the first start make the keys and upload the calls; at each start print the keys."""
    kept = config.server.data_dir / "sample-keys.json"
    if kept.exists():
        tokens = json.loads(kept.read_text(encoding="utf-8"))
    else:
        tokens = await _make_keys(config)
        try:
            if not await _upload(folder, ingest, tokens[Level.UPLOADER]):
                return
        except aiohttp.ClientError as error:  # a door whose certificate is not trusted here
            why = type(error).__name__
            print(f"the samples could not be sent ({why}); the next start tries again")
            return
        durable.write(kept, json.dumps(tokens).encode())
    print("sample keys, for trial only:")
    for level, token in tokens.items():
        print(f"  {level:<11} {token}")
    print(flush=True, end="")


async def offer_accounts(config: Config, doors: tuple[str, str]) -> None:
    """At the first start make an account for each door; at each start print how to sign in."""
    kept = config.server.data_dir / "sample-accounts.json"
    if not kept.exists():
        durable.write(kept, json.dumps(await _make_accounts(config)).encode())
    known = json.loads(kept.read_text(encoding="utf-8"))
    print("to sign in, for trial only:")
    for door, (name, password) in zip(doors, known.items(), strict=True):
        print(f"  {door}/sign-in  name {name}  password {password}")
    print(flush=True, end="")


async def _make_accounts(config: Config) -> dict[str, str]:
    made = {}
    async with keyed(config) as (lent, ring):
        for level in (Level.SUPERVISOR, Level.AUDITOR):
            name, password = f"sample-{level}", accounts.spoken()
            try:
                await accounts.add(lent, ring, name, level, own_password=password)
            except KeyRefusedError:  # of a first start that was broken off
                name = f"{name}-{secrets.token_hex(2)}"
                await accounts.add(lent, ring, name, level, own_password=password)
            made[name] = password
    return made


async def _make_keys(config: Config) -> dict[str, str]:
    tokens = {}
    # A first start that was broken off has taken names already.
    batch = secrets.token_hex(2)
    async with keyed(config) as (lent, ring):
        for level in Level:
            source = "sample-pbx" if level is Level.UPLOADER else None
            name = f"sample-{level}-{batch}"
            tokens[str(level)] = await credentials.add(lent, ring, name, level, source)
    return tokens


async def _upload(folder: Path, ingest: str, token: str) -> bool:
    """Upload the calls; False, with a line that says so, when one was not taken in."""
    calls = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    remote = Remote(ingest, token)
    taken = 0
    async with remote.session() as session:
        for call in calls:
            name = call.pop("file")
            ago = timedelta(minutes=call.pop("minutes_ago"))
            call["started_at"] = (datetime.now(UTC) - ago).isoformat()
            call_id = call.pop("call_id", Path(name).stem)
            async with session.put(
                remote.address(f"/v1/recordings/{call_id}", list(call.items())),
                data=(folder / name).read_bytes(),
            ) as answer:
                # 409: here already, from a first start that was broken off.
                if answer.status not in (201, 409):
                    print(
                        f"sample {name} was refused ({answer.status}); the next start tries again"
                    )
                    return False
                taken += 1
    print(f"took in {taken} sample calls")
    return True
