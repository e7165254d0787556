"""Where a region is, and what contradicts what was declared."""

import pytest

from archive.residency import EEA, OUTSIDE, PROVIDERS, Copy, Seen, contradictions, place, told

AWS = "s3.amazonaws.com"
OWN = "s3.example.fi"

NOWHERE: frozenset[str] = frozenset()


def seen(host: str, *regions: str, copies: tuple[Copy, ...] | None = ()) -> Seen:
    return Seen(host, frozenset(regions), copies)


@pytest.mark.parametrize(
    ("region", "host", "where"),
    [
        ("eu-north-1", AWS, "SE"),
        ("EU", AWS, "IE"),
        ("eu-west-2", AWS, "GB"),
        ("eu-central-2", AWS, "CH"),
        ("us-east-1", AWS, OUTSIDE),
        ("", AWS, OUTSIDE),
        ("ap-southeast-2", AWS, OUTSIDE),
        ("us-gov-west-1", AWS, OUTSIDE),
        ("cn-north-1", "s3.cn-north-1.amazonaws.com.cn", OUTSIDE),
        ("eu-somewhere-9", AWS, None),
        ("EUROPE-NORTH1", "storage.googleapis.com", "FI"),
        ("EUROPE-WEST2", "storage.googleapis.com", "GB"),
        ("US-CENTRAL1", "storage.googleapis.com", OUTSIDE),
        ("ASIA", "storage.googleapis.com", OUTSIDE),
        ("EU", "storage.googleapis.com", None),
        # One name, two providers, two countries.
        ("eu-central-1", AWS, "DE"),
        ("eu-central-1", "s3.eu-central-1.wasabisys.com", "NL"),
        ("eu-west-2", "s3.eu-west-2.wasabisys.com", "FR"),
        ("hel1", "hel1.your-objectstorage.com", "FI"),
        ("fr-par", "s3.fr-par.scw.cloud", "FR"),
        ("ch-dk-2", "sos-ch-dk-2.exo.io", OUTSIDE),
        ("gb-lon-1", "gb-lon-1.linodeobjects.com", OUTSIDE),
        ("se-sto-1", "se-sto-1.linodeobjects.com", "SE"),
        # A server of one's own: what it says unless it is told another name says nothing.
        ("", OWN, None),
        ("default", OWN, None),
        ("us-east-1", OWN, None),
        ("eu-north-1", OWN, None),
        ("fi-hel-1", OWN, None),
        ("us-west-2", OWN, OUTSIDE),
        ("eu-north-1", "notamazonaws.com", None),
    ],
)
def test_a_region_is_where_its_provider_has_it(region: str, host: str, where: str | None) -> None:
    assert place(region, host) == where


def test_every_place_of_the_table_is_a_country_or_outside() -> None:
    places = {where for regions in PROVIDERS.values() for where in regions.values()}
    assert {where for where in places if where not in EEA} == {OUTSIDE, "GB", "CH"}


@pytest.mark.parametrize(
    ("host", "regions", "country", "word"),
    [
        (AWS, ["eu-north-1"], "FI", "eu-north-1, in SE"),
        ("s3.eu-north-1.amazonaws.com", [], "FI", "eu-north-1, in SE"),
        ("s3-eu-west-1.amazonaws.com", [], "FI", "eu-west-1, in IE"),
        ("x.vpce-1.s3.eu-west-2.vpce.amazonaws.com", [], "FI", "eu-west-2, in GB"),
        ("sos-ch-dk-2.exo.io", [], "FI", OUTSIDE),
        ("s3.eu-north-1.amazonaws.com", ["", "eu-north-1"], "SE", OUTSIDE),
        (OWN, ["default", "us-west-2"], "FI", OUTSIDE),
        ("s3.us-west-2.example.com", [], "FI", OUTSIDE),
    ],
)
def test_another_country_than_was_declared_contradicts(
    host: str, regions: list[str], country: str, word: str
) -> None:
    [found] = contradictions(country, NOWHERE, seen(host, *regions))
    assert word in found


@pytest.mark.parametrize(
    ("host", "regions", "country"),
    [
        (AWS, ["eu-north-1"], "SE"),
        ("s3.eu-north-1.amazonaws.com", ["eu-north-1"], "SE"),
        ("hel1.your-objectstorage.com", ["hel1"], "FI"),
        (OWN, ["default", "us-east-1", ""], "FI"),
        ("it-dev.example.fi", [], "FI"),
        ("127.0.0.1", [], "FI"),
    ],
)
def test_the_same_country_or_a_name_that_is_not_known_contradicts_nothing(
    host: str, regions: list[str], country: str
) -> None:
    assert contradictions(country, NOWHERE, seen(host, *regions)) == []


def test_a_copy_must_be_declared_and_lie_where_it_was_declared() -> None:
    copies = (Copy("copies-of-calls"),)
    [found] = contradictions("FI", NOWHERE, seen(OWN, copies=copies))
    assert "copies-of-calls, and no replica is declared" in found
    assert contradictions("FI", frozenset({"SE"}), seen(OWN, copies=copies)) == []

    named = seen(AWS, "eu-north-1", copies=(Copy("copies", "eu-west-2"), Copy("b", "eu-west-1")))
    [found] = contradictions("SE", frozenset({"IE"}), named)
    assert found == "the store copies to the bucket copies, which is in GB"


def test_what_could_not_be_asked_is_never_called_fine() -> None:
    said = told("FI", NOWHERE, Seen(OWN, None, None))
    assert "the region could not be asked" in said
    assert "replication could not be asked" in said
    assert "no replication" not in said
    assert told("FI", NOWHERE, seen(OWN, "default")).endswith("names default; no replication")
    copied = told("FI", frozenset({"SE", "DE"}), seen(OWN, "", copies=(Copy("a"), Copy("b"))))
    assert copied.endswith("the store names no region; copies to 2 buckets, declared in DE, SE")
