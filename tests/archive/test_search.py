"""A query string becomes a query, or an error that names each wrong filter."""

from datetime import UTC, datetime

import pytest

from archive.access import Caller, Level, Scope
from archive.errors import MalformedError
from archive.search import DEFAULT_LIMIT, Query


def errors(*params: tuple[str, str]) -> dict[str, object]:
    with pytest.raises(MalformedError) as caught:
        Query.from_params(params)
    found = caught.value.extra["errors"]
    assert isinstance(found, dict)
    return found


def test_all_filters_are_read() -> None:
    query = Query.from_params(
        [
            ("call_type", "contract"),
            ("call_type", "other"),
            ("from", "2026-01-01T00:00:00 02:00"),
            ("to", "2026-02-01T00:00:00Z"),
            ("number", "040 1234567"),
            ("agent", "anna"),
            ("queue", "faults"),
            ("customer", "C-1"),
            ("contract", "K-1"),
            ("call_id", "17.4"),
            ("source", "pbx1"),
            ("direction", "inbound"),
            ("min_duration", "10"),
            ("max_duration", "3600.5"),
            ("limit", "200"),
        ]
    )
    assert query.call_types == {"contract", "other"}
    assert query.until == datetime(2026, 2, 1, tzinfo=UTC)
    assert dict(query.sealed) == {
        "number": "040 1234567",
        "agent": "anna",
        "queue": "faults",
        "customer": "C-1",
        "contract": "K-1",
        "call_id": "17.4",
    }
    assert (query.direction, query.min_duration, query.max_duration) == ("inbound", 10, 3600.5)
    assert query.limit == 200


def test_nothing_asked_is_everything() -> None:
    assert Query.from_params([]) == Query(limit=DEFAULT_LIMIT)


def test_an_unknown_filter_is_refused_and_not_repeated() -> None:
    found = errors(("agnet", "secret-name"))
    assert "unknown" in found
    assert "agnet" not in str(found)
    assert "secret-name" not in str(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "٣"),
        ("min_duration", "-1"),
        ("min_duration", "nan"),
        ("max_duration", "long"),
        ("from", "2026-01-01"),
        ("to", "2026-01-01T00:00:00"),
        ("call_type", "chat"),
        ("direction", "up"),
        ("agent", ""),
        ("agent", "a\nb"),
        ("number", "1" * 257),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    assert name in errors((name, value))


def test_a_filter_given_twice_is_wrong_unless_it_is_the_call_type() -> None:
    assert "agent" in errors(("agent", "a"), ("agent", "b"))
    assert "direction" in errors(("direction", "inbound"), ("direction", "outbound"))


def test_a_search_is_narrowed_to_what_the_caller_may_know() -> None:
    caller = Caller("k", Level.SUPERVISOR, scope=Scope(frozenset({"contract"})))
    assert Query.from_params([]).within(caller).call_types == {"contract"}
    other = Query.from_params([("call_type", "other")]).within(caller)
    assert other.call_types == frozenset()
    everyone = Caller("k", Level.SUPERVISOR)
    assert Query.from_params([]).within(everyone).call_types is None
