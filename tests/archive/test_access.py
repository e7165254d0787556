"""Levels do not contain each other."""

import pytest

from archive.access import (
    EVERYTHING,
    OPERATORS,
    ORIGINALS,
    READERS,
    Caller,
    Level,
    Scope,
    member,
    require,
)
from archive.errors import ForbiddenError


def test_who_reads_and_who_operates() -> None:
    assert {"supervisor", "privacy"} == READERS
    assert {"auditor", "admin"} == OPERATORS
    assert {"privacy"} == ORIGINALS


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("levels", [READERS, OPERATORS, frozenset({Level.UPLOADER})])
def test_only_the_levels_that_are_named_may(level: Level, levels: frozenset[Level]) -> None:
    caller = Caller("k", level)
    if level in levels:
        require(caller, levels)
    else:
        with pytest.raises(ForbiddenError, match=level):
            require(caller, levels)


BILLING = frozenset({member("queue", "Billing")})
NORTH = frozenset({member("agent", "Åke"), member("queue", "north")})


@pytest.mark.parametrize(
    ("scope", "call", "covered"),
    [
        (EVERYTHING, ("other", None, None), True),
        (Scope(frozenset({"other"})), ("other", None, None), True),
        (Scope(frozenset({"other"})), ("contract", "Billing", "Åke"), False),
        (Scope(frozenset()), ("other", None, None), False),
        (Scope(None, BILLING), ("other", "BILLING", None), True),
        (Scope(None, BILLING), ("other", "billing ", "somebody"), True),
        (Scope(None, BILLING), ("other", "billings", None), False),
        (Scope(None, BILLING), ("other", None, "billing"), False),
        (Scope(None, BILLING), ("other", None, None), False),
        (Scope(None, NORTH), ("other", "south", "åke"), True),
        (Scope(None, NORTH), ("other", "North", "somebody"), True),
        (Scope(None, NORTH), ("other", "south", "a\u030ake"), True),
        (Scope(None, frozenset({member("queue", "A\u030aland")})), ("other", "åland", None), True),
        (Scope(None, NORTH), ("other", "south", "ake"), False),
        (Scope(None, NORTH), ("other", "Åke", "north"), False),
        (Scope(None, frozenset()), ("other", "north", "Åke"), False),
        (Scope(None, frozenset({member("queue", "")})), ("other", None, None), False),
        (Scope(None, frozenset({member("queue", "")})), ("other", "", ""), False),
        (Scope(frozenset({"other"}), NORTH), ("other", "north", None), True),
        (Scope(frozenset({"other"}), NORTH), ("contract", "north", None), False),
        (Scope(frozenset({"other"}), NORTH), ("other", "south", None), False),
    ],
)
def test_a_scope_covers_what_both_its_limits_do(
    scope: Scope, call: tuple[str, str | None, str | None], covered: bool
) -> None:
    assert scope.covers(*call) is covered


def test_what_is_erased_is_in_no_scope_that_asks_for_a_queue_or_an_agent() -> None:
    assert EVERYTHING.covers_erased("other")
    assert Scope(frozenset({"other"})).covers_erased("other")
    assert not Scope(frozenset({"contract"})).covers_erased("other")
    assert not Scope(None, NORTH).covers_erased("other")
