"""What real stores say of where they are, and what others may say."""

from collections.abc import Iterator

import pytest

from archive.residency import Copy, Seen
from storage.objects import ObjectStore, StoreError
from tests.stores.answering import Answering, answering

REPLICATION = (
    '<ReplicationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Role>r</Role>'
    "{}</ReplicationConfiguration>"
)
RULE = "<Rule><ID>1</ID><Status>{}</Status><Destination><Bucket>{}</Bucket></Destination></Rule>"
NO_RULES = "<Error><Code>ReplicationConfigurationNotFoundError</Code></Error>"


@pytest.fixture
def bucket() -> Iterator[Answering]:
    with answering() as told:
        yield told


async def look(bucket: Answering) -> Seen:
    store = await ObjectStore.connect(bucket.endpoint, "calls", "a" * 20, "b" * 40)
    try:
        return await store.seen()
    finally:
        await store.close()


async def test_rclone_names_no_region_and_does_not_know_of_replication(
    rclone_store: ObjectStore,
) -> None:
    """It answers that question with the list of the objects, and a 200."""
    seen = await rclone_store.seen()
    assert (seen.host, seen.regions, seen.copies) == ("127.0.0.1", frozenset({""}), None)


async def test_ceph_names_its_zone_group_and_says_that_nothing_is_copied(
    rgw_store: ObjectStore,
) -> None:
    seen = await rgw_store.seen()
    assert (seen.regions, seen.copies) == (frozenset({"default"}), ())


@pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
async def test_a_store_that_does_not_tell_is_not_one_without_copies(
    bucket: Answering, status: int
) -> None:
    bucket.answers["replication"] = (status, "<Error><Code>No</Code></Error>")
    assert (await look(bucket)).copies is None


async def test_the_region_is_told_by_a_header_or_by_an_answer(bucket: Answering) -> None:
    assert (await look(bucket)).regions is None
    bucket.region = "eu-north-1"
    assert (await look(bucket)).regions == {"eu-north-1"}
    bucket.answers["location"] = (200, "<LocationConstraint>eu-west-1\n</LocationConstraint>")
    assert (await look(bucket)).regions == {"eu-north-1", "eu-west-1"}


async def test_no_rules_are_told_by_a_404_of_its_own_name(bucket: Answering) -> None:
    bucket.answers["replication"] = (404, NO_RULES)
    assert (await look(bucket)).copies == ()


async def test_every_rule_counts_also_one_that_is_switched_off(bucket: Answering) -> None:
    rules = [
        RULE.format("Enabled", "arn:aws:s3:::copies-of-calls"),
        RULE.format("Disabled", "arn:minio:replication:eu-west-2:0a1b:old-copies"),
        RULE.format("Enabled", "plain-name"),
        "<Rule><Status>Enabled</Status></Rule>",
    ]
    bucket.answers["replication"] = (200, REPLICATION.format("".join(rules)))
    assert (await look(bucket)).copies == (
        Copy("copies-of-calls"),
        Copy("old-copies", "eu-west-2"),
        Copy("plain-name"),
        Copy(""),
    )


@pytest.mark.parametrize("body", ["", "ok", "<html/>", "<ListBucketResult/>", "<!DOCTYPE x><x/>"])
async def test_an_answer_to_another_question_is_none(bucket: Answering, body: str) -> None:
    bucket.answers = {"replication": (200, body), "location": (200, body)}
    seen = await look(bucket)
    assert (seen.regions, seen.copies) == (None, None)


async def test_a_store_that_fails_is_away_and_not_one_that_could_not_be_asked(
    bucket: Answering,
) -> None:
    bucket.answers["replication"] = (500, "<Error><Code>InternalError</Code></Error>")
    with pytest.raises(StoreError):
        await look(bucket)


async def test_what_a_store_says_can_be_printed(bucket: Answering) -> None:
    bucket.answers["location"] = (200, "<LocationConstraint>a\u202eb&#10;c</LocationConstraint>")
    assert (await look(bucket)).regions == {"a?b?c"}
