"""A model of how recordings are stored, erased and restored, small enough to look at every state.

The protocol holds two stores in step, a database and an object store, and a third thing that ends a
day for good, the key ring. None of them can be changed together with another. So each act of the
code is cut here where a crash can cut it: at its durable steps. An act is a line of a table, with a
guard (when it can happen) and an effect (what is so afterwards); whoever is at work is where its
last step left it, and any other may act in between, for as long as it takes. A search
(`tests.model.search`) then goes through every state that the table can lead to, and compares each
with the promises (`tests.model.promises`).

What can go wrong at any moment: a process dies, or stands still and goes on; a put fails, or times
out and lands later, as long as its signature is good; the reply to a commit is lost, and the commit
lands, or lands later, or never; a lease ends under one who is at work; the instant comes, or the
end of the day; the store refuses a removal or cannot be asked; the object of an erased recording
comes back, as out of a copy of the bucket; once, the database is put back to an older state and
rebuilt.

Everything together would be millions of states, nearly all of them two unrelated things side by
side. The worlds below each hold those who can meet.

What is taken for granted, and so not found by the search: no process stands still for more than a
day between its intent and its put; a put that was begun does not take longer than that either; a
year is longer than the ledger takes to be published; the service is stopped while the database is
put back, and until it is rebuilt. Several recordings in one batch, several days, versions of
objects, uploads in parts, the clock fuse and the tree's hashes are not in the model.
"""

from tests.model.erasing import ERASING
from tests.model.mending import MENDING
from tests.model.state import World
from tests.model.uploading import UPLOADING

PROTOCOL = UPLOADING | ERASING | MENDING

UPLOADS = World(
    "two uploads of a call, one sweeper",
    recordings=2,
    erasers=0,
    reconcilers=0,
    closers=0,
    without=frozenset(
        {"ledger", "compare", "backup", "reader", "sweep: dies", "time: the day is over"}
    ),
)
LEFTOVERS = World(
    "one upload, two sweepers, a reconciler, an eraser, the day's end",
    recordings=1,
    sweepers=2,
    without=frozenset({"ledger", "backup", "reader", "copy"}),
)
ERASURE = World(
    "one upload, two erasers, two who close the day, readers",
    recordings=1,
    erasers=2,
    closers=2,
    without=frozenset({"ledger", "backup", "compare"}),
)
RESTORE = World(
    "one upload, one of each, a restore and a rebuild",
    recordings=1,
    without=frozenset(
        {
            "compare",
            "reader",
            "sweep: dies",
            "eraser: dies",
            "close: dies",
            "upload: commit, its reply lost",
        }
    ),
)
TWINS = World(
    "two uploads of a call, a restore and a rebuild",
    recordings=2,
    erasers=0,
    sweepers=0,
    reconcilers=0,
    closers=0,
    without=frozenset({"reader", "time", "copy"}),
)
WORLDS = (UPLOADS, LEFTOVERS, ERASURE, RESTORE, TWINS)
