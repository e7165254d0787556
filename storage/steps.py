"""The named steps of intake, erasure, exports and rebuilding, where a test may stop the world.

`ARCHIVE_CRASH_AT=name` in the environment kills the process, as a power cut would, when it reaches
that step for the first time. Nothing else reads it; without it a step costs one comparison.
"""

import os
import signal

INTAKE = ("received", "intended", "put", "committed")
REDACTION = ("named", "put", "redacted")
LANDING = ("landed", "cleared")
UPLOAD = ("synced", "kept", "became")
FETCH = ("asked", "fetched", "took", "cleared")
ERASURE = ("claimed", "removed", "absent", "erased")
EXPORT = ("export claimed", "export packed", "export put", "export made", "export emptied")
LEDGER = ("sequenced",)
CLOSE = ("swept", "destroyed", "closed")
REBUILD = ("replayed", "rebuilt")

_crash_at = os.environ.get("ARCHIVE_CRASH_AT")


def reached(name: str) -> None:
    """Tell that a step is done."""
    if name == _crash_at:
        os.kill(os.getpid(), signal.SIGKILL)
