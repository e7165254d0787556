"""Rows that somebody changed in the database do not open."""

from datetime import timedelta

import pytest

from tests.roles import connection
from tests.services import Service
from tests.web.test_listen import upload
from tests.web.test_upload import problem


async def change(service: Service, assignment: str, one: str, other: str) -> None:
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            f"UPDATE recording r SET {assignment} FROM recording o"
            " WHERE r.id = $1::uuid AND o.id = $2::uuid",
            one,
            other,
        )


@pytest.mark.parametrize(
    "assignment",
    [
        "header = o.header, details = o.details",
        "header = o.header, details = o.details, attempt = o.attempt",
        "details = o.details",
        "call_type = 'other'",
        "expires_at = r.expires_at + interval '1 day'",
        "source = 'another'",
        "details = overlay(r.details placing '\\x00'::bytea from 30)",
        "header = overlay(r.header placing '\\x00'::bytea from 60)",
    ],
)
async def test_a_row_with_anothers_parts_or_other_rules_is_not_shown(
    service: Service, assignment: str
) -> None:
    one = await upload(service, "one", call_type="fault_report")
    other = await upload(service, "two", call_type="contract")
    await change(service, assignment, one, other)
    for path in (f"/v1/recordings/{one}", f"/v1/recordings/{one}/audio", "/v1/recordings"):
        await problem(await service.get(path), 500, "unexpected")
    assert (await service.get(f"/v1/recordings/{other}")).status == 200


async def test_an_object_that_was_exchanged_is_not_heard(service: Service) -> None:
    one = await upload(service, "one")
    rows = {str(row["id"]): row for row in await service.rows()}
    holding = (await service.holdings())[0]
    whole = len(rows[one]["header"]) + len(rows[one]["details"])
    async with service.vault.objects.get(holding.key, 0, whole + 1000) as pieces:
        body = b"".join([piece async for piece in pieces])
    from hashlib import md5

    changed = body[:-1] + bytes([body[-1] ^ 1]) + bytes(rows[one]["bytes"])
    await service.vault.objects.put(
        holding.key, [changed], len(changed), md5(changed).digest(), timedelta(seconds=9).seconds
    )
    await problem(await service.get(f"/v1/recordings/{one}/audio"), 500, "unexpected")
