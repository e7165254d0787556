"""Levels do not contain each other."""

import pytest

from archive.access import OPERATORS, READERS, Caller, Level, require
from archive.errors import ForbiddenError


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("levels", [READERS, OPERATORS, frozenset({Level.UPLOADER})])
def test_only_the_levels_that_are_named_may(level: Level, levels: frozenset[Level]) -> None:
    caller = Caller("k", level)
    if level in levels:
        require(caller, levels)
        assert caller.may_know("contract")
    else:
        with pytest.raises(ForbiddenError, match=level):
            require(caller, levels)


def test_a_key_limited_to_call_types_knows_of_no_other() -> None:
    caller = Caller("k", Level.PRIVACY, call_types=frozenset({"other"}))
    assert caller.may_know("other")
    assert not caller.may_know("contract")
