"""kill -9 while a redacted copy is stored: it stands, or nothing is left of it."""

import aiohttp
import pytest

from storage import redactions, steps
from storage.upkeep import reconcile
from tests.app.test_crash import Services, at, heard, services
from tests.services import Service
from tests.sounds import tone
from tests.web.test_listen import upload
from tests.web.test_redaction import CARD, redact, swept

__all__ = ["services"]


@pytest.mark.parametrize("step", steps.REDACTION)
async def test_a_kill_while_a_copy_is_stored(
    service: Service, services: Services, step: str
) -> None:
    identifier = await upload(service, "c1", tone(4))
    child = await services.start(crash_at=step)
    with pytest.raises(aiohttp.ClientError):
        await redact(at(service, child), identifier, CARD)
    await child.death()
    stands = step == "redacted"
    assert len(await service.holdings()) == 1 + (step != "named")
    content = await heard(service, identifier)
    assert any(content[44 + 1300 * 16 : 44 + 2300 * 16]) is not stands
    # Until what was sent can land no more, it is the copy's and nobody's stray.
    assert not (await reconcile.run(service.vault, repair=True)).failed
    await redactions.collect(service.vault, 100)
    assert len(await service.holdings()) == 1 + (step != "named")
    await swept(service)
    assert len(await service.holdings()) == 1 + stands
    assert not (await reconcile.run(service.vault, repair=True)).failed
    made = [act for act, _ in await service.acts()].count("redaction.made")
    assert made == stands
