"""Who may hand a call over at all, whatever door they came through."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from archive.access import Caller, Level
from archive.errors import ForbiddenError
from archive.recording import Call, CallType
from archive.retention import Expiry
from storage import intake
from storage.intake import Admitted
from storage.vault import Vault
from tests.roles import acting
from tests.services import Service
from tests.sounds import tone
from tests.web.test_upload import query

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
CALL = Call(
    "1", CallType.OTHER, NOW, Expiry(NOW.replace(year=2027), NOW.date().replace(year=2027), "rule")
)


@pytest.mark.parametrize("level", [level for level in Level if level is not Level.UPLOADER])
async def test_nobody_but_an_uploader_hands_a_call_over(vault: Vault, level: Level) -> None:
    with pytest.raises(ForbiddenError):
        await intake.admit(acting(vault, "ingest"), Caller("k", level, source="pbx"), CALL, NOW)


async def test_an_uploader_hands_over_for_its_source(vault: Vault) -> None:
    door = acting(vault, "ingest")
    admitted = await intake.admit(door, Caller("k", Level.UPLOADER, source="pbx"), CALL, NOW)
    assert admitted == Admitted(CALL, "pbx", known=False)
    with pytest.raises(ValueError, match="has a source"):
        await intake.admit(door, Caller("k", Level.UPLOADER), CALL, NOW)


async def test_a_call_that_is_here_is_known(service: Service) -> None:
    fields = query(call_type="other")
    assert (await service.put("1", tone(), fields)).status == 201
    (row,) = await service.rows()
    call = replace(CALL, started_at=datetime.fromisoformat(fields["started_at"]))
    caller = Caller("k", Level.UPLOADER, source=row["source"])
    admitted = await intake.admit(acting(service.vault, "ingest"), caller, call, call.started_at)
    assert admitted == Admitted(call, row["source"], known=True)
