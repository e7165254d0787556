"""What hearing a recording asks for besides the right to: a reason, and a budget that is not used
up.

For call types that the operator names, a supervisor has to say why. Everybody's budget is so many
recordings in an hour, however often each of them is heard or downloaded within it: whoever needs
more is not listening but collecting.
"""

from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import unquote_to_bytes

from archive.access import Caller, Level
from archive.errors import MalformedError
from archive.recording import is_text

REASON_HOLDS = timedelta(hours=1)
"""How long a reason that was given opens the audio of its recording: time to hear and go back."""

HOUR = timedelta(hours=1)
"""What a budget is counted over: any hour, wherever it begins."""

LONGEST = 500
"""Characters of a reason."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The call types that ask a supervisor for a reason, and recordings an hour for everybody."""

    reason_for: frozenset[str] = frozenset()
    recordings_per_hour: int = 500

    def reasons(self, caller: Caller) -> frozenset[str]:
        """The call types that ask this caller for a reason."""
        return self.reason_for if caller.level is Level.SUPERVISOR else frozenset()


USUAL = Rules()
"""What holds where the operator says nothing."""


def reason(text: object) -> str:
    """Read a reason. Raises MalformedError, which does not repeat it."""
    if isinstance(text, str) and 0 < len(text.strip()) <= LONGEST and is_text(text):
        return text.strip()
    raise MalformedError(
        f"A reason is one line of 1 to {LONGEST} characters, none of them a control character."
    )


def reason_of_header(value: str) -> str:
    """The same out of a header, where it stands percent-encoded in UTF-8."""
    try:
        return reason(unquote_to_bytes(value).decode())
    except UnicodeError:  # no UTF-8 behind the percents, or none beside them
        return reason(None)
