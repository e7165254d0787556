"""Four eyes: whose asking counts, for what, and until when, to the very instant."""

from datetime import UTC, datetime, timedelta

import pytest

from archive.access import Level
from storage import four_eyes
from storage.four_eyes import WAIT, Matter, RefusedError
from tests.roles import connection
from tests.services import Service, stop_clock

LEVELS = frozenset({Level.ADMIN, Level.PRIVACY})
MATTER = Matter("x.asked", "x.granted", LEVELS, {"what": "one"})
INSTANT = timedelta(microseconds=1)


async def agree(service: Service, who: str, matter: Matter = MATTER) -> str | None:
    """Who asked before, as a level, or nobody."""
    ids = {token.split("_")[1]: level for level, token in service.tokens.items()}
    names = {level: key for key, level in ids.items()}
    async with connection(service.vault.pool) as lent, lent.transaction():
        await four_eyes.alone(lent)
        found = await four_eyes.agree(lent, names[who], matter)
    return found and ids[found]


async def test_an_asking_is_answered_once_even_within_an_instant(service: Service) -> None:
    await stop_clock(service.vault, datetime.now(UTC))
    assert await agree(service, "admin") is None
    assert await agree(service, "privacy") == "admin"
    assert await agree(service, "privacy") is None


async def test_an_asking_is_good_for_a_day(service: Service) -> None:
    at = datetime.now(UTC)
    for later, other in ((WAIT, "admin"), (WAIT + INSTANT, None)):
        matter = Matter("x.asked", "x.granted", LEVELS, {"what": f"{later}"})
        await stop_clock(service.vault, at)
        assert await agree(service, "admin", matter) is None
        await stop_clock(service.vault, at + later)
        assert await agree(service, "privacy", matter) == other


async def test_what_is_granted_is_what_was_asked_for(service: Service) -> None:
    assert await agree(service, "admin") is None
    other = Matter("x.asked", "x.granted", LEVELS, {"what": "other"})
    assert await agree(service, "privacy", other) is None
    assert await agree(service, "privacy") == "admin"
    # The granting of the one left the other open.
    assert await agree(service, "admin", other) == "privacy"


async def test_who_asked_must_still_be_of_the_level(service: Service) -> None:
    assert await agree(service, "admin") is None
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE access_key SET level = 'auditor' WHERE name = 'test-admin'")
    assert await agree(service, "privacy") is None


async def test_two_are_two_people_where_it_is_said_whose_both_are(service: Service) -> None:
    for persons, other in (
        (("anna", "anna"), None),
        (("anna", "bo"), "admin"),
        (("anna", None), None),
        ((None, "anna"), None),
        ((None, None), None),
    ):
        async with connection(service.vault.pool) as lent:
            for level, person in zip(("admin", "privacy"), persons, strict=True):
                await lent.execute(
                    "UPDATE access_key SET person = $1 WHERE name = $2", person, f"test-{level}"
                )
        matter = Matter("x.asked", "x.granted", LEVELS, {"what": f"{persons}"})
        assert await agree(service, "admin", matter) is None
        assert await agree(service, "privacy", matter) == other, persons


async def test_whose_word_it_is_has_to_be_shown(service: Service) -> None:
    async with connection(service.vault.pool) as lent:
        for token, why in (
            ("", "two people decide"),
            ("cra_nobody", "not known"),
            (service.tokens["auditor"], "of level auditor"),
        ):
            with pytest.raises(RefusedError, match=why):
                await four_eyes.person(lent, service.vault.ring, token, LEVELS)
        nobodys = await service.key("admin", "nobodys")
        with pytest.raises(RefusedError, match="archive key person"):
            await four_eyes.person(lent, service.vault.ring, nobodys, LEVELS)
        token = service.tokens["admin"]
        caller = await four_eyes.person(lent, service.vault.ring, token, LEVELS)
    assert caller.level is Level.ADMIN
