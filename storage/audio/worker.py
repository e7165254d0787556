"""The process in which foreign audio is decoded, with as little as possible to do harm with.

`pool` starts it with one end of a socket. A job is one packet with JSON and the descriptor of a
sealed file; answers are packets whose first byte is their kind: `D` a piece of a copy, `E` the end
(JSON: a result or an error). Nothing is ever written to a file, and nothing can be:

- file size and core dumps are limited to nothing, address space and processor time to what audio
  needs (time anew for each job; who takes more is killed by the kernel);
- before the first job the table of descriptors is made so short that the job's own one fills it:
  whatever a demuxer might be talked into, neither a file nor a socket can be opened any more;
- it is not dumpable, gains no privileges, and dies with its parent. No secret is in its
  environment;
- and lest it be talked into running foreign code, `sandbox` takes from it what the kernel lets go.

Each kind of work is done once before that, since nothing can be loaded later, and once behind it:
where the sandbox keeps a system from decoding, no worker starts and uploads are put off with 503.
To refuse them as not audio would be to lose them.
"""

import array
import ctypes
import io
import json
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from archive.errors import NotAudioError, TooLargeError
from storage.audio import sandbox
from storage.audio.decode import measure, open_track
from storage.audio.formats import NAMES, Format
from storage.audio.render import transcode, wav_part, waveform
from storage.audio.wave import pcm_header
from storage.sealing import DamagedError
from storage.spool import SealedReader

DATA, END, READY = b"D", b"E", b"R"
PACKET = 1 << 16  # bytes of a copy in one packet, at most
JOB = 1 << 14  # bytes of a job's JSON, at most
ADDRESS_SPACE = 640 << 20  # bytes; with all libraries loaded 160 MB are in use
_CONTROL = 3  # the socket's descriptor; the next is the job's file, and more there are not
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


def main(descriptor: int, parent: int) -> None:
    """Serve jobs from the socket `descriptor` until its other end is closed."""
    box = sandbox.Sandbox().attempt("namespaces", sandbox.namespaces)
    _confine(parent)
    _warm_up()
    if descriptor != _CONTROL:
        os.dup2(descriptor, _CONTROL)
        os.close(descriptor)
    with socket.socket(fileno=_CONTROL) as control, Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)  # from here on messages would be about foreign audio
        nothing.close()
        box = box.attempt("Landlock", sandbox.landlock)
        resource.setrlimit(resource.RLIMIT_NOFILE, (_CONTROL + 2, _CONTROL + 2))
        box = box.attempt("system call filter", sandbox.system_calls)
        _warm_up()
        control.send(READY + json.dumps(box.words()).encode())
        while job := _receive(control):
            _serve(control, *job)


def _confine(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in (
        (_PR_SET_PDEATHSIG, signal.SIGKILL),
        (_PR_SET_DUMPABLE, 0),
        (_PR_SET_NO_NEW_PRIVS, 1),
    ):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        raise SystemExit(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def _warm_up() -> None:
    """Do each kind of work once, so that nothing has to be loaded later."""
    silence = pcm_header(8000, 1, 800) + bytes(1600)
    formats: tuple[Format, ...] = ("wav", "mp3", "ogg")
    for to in formats:
        with open_track(io.BytesIO(silence), len(silence), None, NAMES) as track:
            transcode(track, to, io.BytesIO().write, cuts=[(1, 2, None)])
    with open_track(io.BytesIO(silence), len(silence), None, NAMES) as track:
        waveform(track, 10)
    with open_track(io.BytesIO(silence), len(silence), None, NAMES) as track:
        measure(track, 1)


def _receive(control: socket.socket) -> tuple[dict[str, Any], int] | None:
    """The next job and its file, or None when there will be no more."""
    message, ancillary, _, _ = control.recvmsg(JOB, socket.CMSG_SPACE(4))
    if not message:
        return None
    descriptors = array.array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data[: len(data) - len(data) % 4])
    return json.loads(message), descriptors[0]


def _serve(control: socket.socket, job: dict[str, Any], descriptor: int) -> None:
    try:
        used = resource.getrusage(resource.RUSAGE_SELF)
        allowance = math.ceil(used.ru_utime + used.ru_stime + job["cpu"])
        resource.setrlimit(resource.RLIMIT_CPU, (allowance, resource.RLIM_INFINITY))
        reader = SealedReader(descriptor, job["offset"], job["size"], bytes.fromhex(job["keys"]))
        answer = _answer(control, job, cast(BinaryIO, reader))
    finally:
        os.close(descriptor)
    control.send(END + json.dumps(answer).encode())


def _answer(control: socket.socket, job: Mapping[str, Any], reader: BinaryIO) -> dict[str, object]:
    """Do what the job asks; errors become words that `pool` turns back into errors."""
    try:
        return {"result": _work(control, job, reader)}
    except NotAudioError as error:
        return {"error": "not-audio", "detail": error.detail}
    except TooLargeError as error:
        return {"error": "too-large", "detail": error.detail}
    except DamagedError as error:
        return {"error": "damaged", "detail": str(error)}
    except (ConnectionError, MemoryError):
        raise
    except Exception as error:
        # Whatever else a decoder says of foreign bytes: its words are not passed on.
        return {"error": "failed", "detail": type(error).__name__}


def _work(control: socket.socket, job: Mapping[str, Any], reader: BinaryIO) -> object:
    allowed = NAMES if job["allowed"] is None else frozenset(job["allowed"])
    with open_track(reader, job["size"], job["media"], allowed) as track:
        if job["do"] == "probe":
            facts = measure(track, job["max_duration"])
            return [getattr(facts, name) for name in facts.__slots__]
        if job["do"] == "waveform":
            return waveform(track, job["points"])

        def send(piece: bytes) -> None:
            for start in range(0, len(piece), PACKET):
                control.send(DATA + piece[start : start + PACKET])

        if job["do"] == "wav part":
            wav_part(track, job["samples"], job["start"], job["stop"], send, job["cuts"])
        else:
            transcode(track, job["to"], send, job["samples"], job["cuts"])
        return None


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
