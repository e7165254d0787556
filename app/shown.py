"""What a certificate shows that holds, for who has checked it: as JSON, and in words."""

from collections.abc import Sequence

from archive.certificate import Erasure, ExportErasure
from archive.ledger import instant
from archive.nights import Night


def facts(shown: Erasure | ExportErasure) -> dict[str, object]:
    """An erasure, as JSON."""
    if isinstance(shown, ExportErasure):
        begun: dict[str, object] = {
            "export": shown.export,
            "recordings": shown.recordings,
            "why": shown.why,
            "asked_at": shown.asked_at.isoformat(),
        }
    else:
        begun = {
            "recording": shown.recording,
            "rule": shown.rule,
            "early": shown.early,
            "stored_at": shown.stored_at.isoformat(),
        }
    return {
        "holds": True,
        **begun,
        "due": shown.due.isoformat(),
        "erased_at": shown.erased_at.isoformat(),
        "day_key_destroyed_at": shown.closed_at and shown.closed_at.isoformat(),
    }


def words(shown: Erasure | ExportErasure) -> str:
    """An erasure, in words."""
    closed = (
        f"its day's key was destroyed by {shown.closed_at.isoformat()}"
        if shown.closed_at
        else "its day's key is not destroyed yet"
    )
    if isinstance(shown, ExportErasure):
        return (
            f"holds: the ledger says that export {shown.export}, a copy of {shown.recordings}"
            f" recordings, was to be over by {shown.due.isoformat()}, was erased at"
            f" {shown.erased_at.isoformat()} ({shown.why}), and that {closed}"
        )
    return (
        f"holds: the ledger says that recording {shown.recording} was due at"
        f" {shown.due.isoformat()} ({shown.rule}), was erased at {shown.erased_at.isoformat()},"
        f"{' early, as two keys granted,' if shown.early else ''}"
        f" and that {closed}"
    )


def night_facts(told: Sequence[Night]) -> dict[str, object]:
    """The accounts of a night, one for each run of its work, as JSON."""
    accounts = [
        {
            "night": each.night.isoformat(),
            "told_at": instant(each.told_at),
            "due": each.due,
            "erased": each.erased,
            "failed": each.failed,
        }
        for each in told
    ]
    return {"holds": True, "nights": accounts}


def night_words(told: Sequence[Night]) -> str:
    """The same in words, a line for each."""
    return "\n".join(
        f"holds: the ledger says that by the night of {each.night}, at {instant(each.told_at)},"
        f" {each.due} recordings were due since the account before: {each.erased} were erased, and"
        f" {each.failed} were not; what failed is the archive's word"
        for each in told
    )
