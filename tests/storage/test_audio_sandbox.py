"""What foreign code could do in a worker, tried from inside: by all parts, and by each alone."""

import errno
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from archive.errors import NotAudioError, TooLargeError, UnavailableError
from storage.audio import filter as calls
from storage.audio import pool as pool_module
from storage.audio.filter import ALLOW, CALLS, KILL, MACHINES, REFUSE, Machine
from storage.audio.formats import NAMES
from storage.audio.pool import AudioPool
from storage.audio.sandbox import Sandbox
from tests.storage import soundfiles
from tests.storage.soundfiles import tone, wav
from tests.storage.test_audio_pool import LIMIT, sealed

PARTS = {
    "namespaces": "namespaces",
    "Landlock": "landlock",
    "system call filter": "system_calls",
}
SCRIPT = """
import ctypes, json, mmap, os, resource, signal, socket, sys, threading
from storage.audio import sandbox, worker

def missing():
    raise OSError(0, "said to be missing")

for name in {without}:
    setattr(sandbox, name, missing)

port, folder, parent = {port}, {folder!r}, int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
real = worker.measure

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def executable():
    page = libc.mmap
    page.restype = ctypes.c_ssize_t
    if page(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_size_t(0)) == -1:
        raise OSError(ctypes.get_errno(), "mmap")

def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.connect(address)

def outcome(deed):
    try:
        eval(deed)
    except OSError as error:
        return error.errno
    except RuntimeError:
        return 1  # that is how Python says that no thread can be started
    return 0

def measure(track, limit):
    if limit == 1:  # the warm-up
        return real(track, limit)
    {deed}

def attempt(deeds):
    os.close(0), os.close(1)  # so that it is not the short table of descriptors that refuses
    raise worker.TooLargeError(json.dumps([outcome(deed) for deed in deeds]))

worker.measure = measure
worker.main(int(sys.argv[1]), parent)
"""
INSIDE = [
    "os.open(folder + '/canary', os.O_RDONLY)",
    "os.open(folder + '/new', os.O_WRONLY | os.O_CREAT)",
    "os.unlink(folder + '/canary')",
    "os.rename(folder + '/canary', folder + '/moved')",
    "os.mkdir(folder + '/new')",
    "os.symlink('canary', folder + '/new')",
    "os.link(folder + '/canary', folder + '/new')",
    "os.truncate(folder + '/canary', 0)",
    "os.chmod(folder + '/canary', 0o777)",
    "os.stat(folder + '/canary')",
    "os.listdir(folder)",
    "connect(socket.AF_INET, ('127.0.0.1', port))",
    "connect(socket.AF_UNIX, folder + '/door')",
    "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
    "socket.socketpair()",
    "os.pipe()",
    "os.dup(2)",
    "os.memfd_create('x')",
    "os.write(4, b'x')",
    "os.sendfile(3, 4, 0, 10)",
    "mmap.mmap(4, 10, prot=mmap.PROT_READ)",
    "executable()",
    "os.fork()",
    "os.execv(sys.executable, [sys.executable, '-c', 'pass'])",
    "os.posix_spawn(sys.executable, [sys.executable, '-c', 'pass'], {})",
    "threading.Thread(target=print).start()",
    "os.kill(parent, 0)",
    "os.kill(parent, signal.SIGKILL)",
    "call('ptrace', 16, parent, None, None)",
    "call('process_vm_readv', parent, None, 0, None, 0, 0)",
    "call('prctl', 4, 1, 0, 0, 0)",
    "call('unshare', 0x10000000)",
    "call('mount', b'none', folder.encode(), b'tmpfs', 0, None)",
    "call('syscall', 425, 8, None)",  # io_uring_setup
    "call('syscall', 321, 0, None, 0)",  # bpf
    "call('prlimit', 0, resource.RLIMIT_AS, (ctypes.c_uint64 * 2)(1 << 40, 1 << 40), None)",
    "resource.prlimit(parent, resource.RLIMIT_CPU)",
    "signal.signal(signal.SIGXCPU, signal.SIG_IGN)",
]
ALONE = [
    ("Landlock", [*INSIDE[:5], INSIDE[10]], errno.EACCES),
    ("namespaces", ["connect(socket.AF_INET, ('127.0.0.1', port))"], errno.ENETUNREACH),
    ("namespaces", ["call('sethostname', b'x', 1)"], errno.EPERM),
    ("system call filter", INSIDE, errno.EPERM),
]


@pytest.fixture
async def pool() -> AsyncIterator[AudioPool]:
    made = AudioPool(1)
    yield made
    await made.close()


class Surroundings:
    """A folder with a canary in it, and a listener on a port and on a path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "f"
        self.folder.mkdir()
        (self.folder / "canary").write_text("sings")
        self._listeners = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
        self._listeners[1].bind(str(self.folder / "door"))
        self._listeners[1].listen()
        self.port = self._listeners[0].getsockname()[1]
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(("127.0.0.1", self.port))

    def assert_untouched(self) -> None:
        assert sorted(each.name for each in self.folder.iterdir()) == ["canary", "door"]
        canary = self.folder / "canary"
        assert (canary.read_text(), canary.stat().st_mode & 0o777) == ("sings", 0o644)
        for each in (*self._listeners, self.datagrams):
            each.setblocking(False)
            with each, pytest.raises(BlockingIOError):
                each.recvfrom(1) if each is self.datagrams else each.accept()


def use(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    deed: str = "return real(track, limit)",
    around: Surroundings | None = None,
    without: tuple[str, ...] = (),
) -> None:
    """Workers that do `deed` instead of measuring, lacking the parts `without`."""
    port = around.port if around else 0
    place = str(around.folder) if around else ""
    script = folder / "worker.py"
    names = [PARTS[each] for each in without]
    script.write_text(SCRIPT.format(without=names, port=port, folder=place, deed=deed))
    monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, str(script)))


async def outcomes(pool: AudioPool, deeds: list[str]) -> dict[str, int]:
    """With which error each was refused; 0 for what was done."""
    with sealed(wav(tone(1))) as source, pytest.raises(TooLargeError) as refused:
        await pool.probe(source, None, NAMES, LIMIT)
    return dict(zip(deeds, json.loads(refused.value.detail), strict=True))


async def test_foreign_code_in_a_worker_reaches_nothing(
    pool: AudioPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    around = Surroundings(tmp_path)
    use(monkeypatch, tmp_path, f"attempt({INSIDE})", around)
    if "system call filter" in (await pool.sandbox()).in_force:
        assert await outcomes(pool, INSIDE) == dict.fromkeys(INSIDE, errno.EPERM)
        around.assert_untouched()
    else:
        assert calls.here() is None


@pytest.mark.parametrize(("part", "deeds", "number"), ALONE)
async def test_each_part_refuses_alone(
    pool: AudioPool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    part: str,
    deeds: list[str],
    number: int,
) -> None:
    around = Surroundings(tmp_path)
    others = tuple(each for each in PARTS if each != part)
    use(monkeypatch, tmp_path, f"attempt({deeds})", around, others)
    box = await pool.sandbox()
    if part in box.in_force:
        assert box.in_force == (part,)
        assert await outcomes(pool, deeds) == dict.fromkeys(deeds, number)
        around.assert_untouched()
    else:
        assert any(each.startswith(f"{part} (") for each in box.missing)


@pytest.mark.parametrize("without", [(), *((each,) for each in PARTS), tuple(PARTS)])
async def test_every_kind_of_work_is_done_whatever_is_missing(
    pool: AudioPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, without: tuple[str, ...]
) -> None:
    use(monkeypatch, tmp_path, "return real(track, limit)", without=without)
    box = await pool.sandbox()
    assert {f"{each} (said to be missing)" for each in without} <= set(box.missing)
    makes = (soundfiles.mp3, soundfiles.opus, soundfiles.flac, soundfiles.m4a, soundfiles.webm)
    for make in (*makes, soundfiles.amr, lambda: wav(tone(1))):
        with sealed(make()) as source:
            assert (await pool.probe(source, None, NAMES, LIMIT)).duration > 0.9
            assert len((await pool.waveform(source, 10))[0]) == 10
            for to in ("wav", "mp3", "ogg"):
                async with pool.transcode(source, to) as pieces:
                    assert sum([len(piece) async for piece in pieces]) > 500
    assert len(pool._idle) == 1


async def test_where_the_sandbox_keeps_from_decoding_uploads_are_put_off_not_refused(
    pool: AudioPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, tmp_path)
    script = tmp_path / "worker.py"
    narrow = "from storage.audio import filter\nfilter.CALLS = {'close': (3, 57, ())}\n"
    script.write_text(narrow + script.read_text())
    with sealed(wav(tone(1))) as source, pytest.raises(UnavailableError):
        await pool.probe(source, None, NAMES, LIMIT)


@pytest.mark.parametrize(
    "answer", [b"", b"x", b"[]", b"{}", b'{"detail": 1}', b'{"error": "x"}', b"[" * 100_000]
)
async def test_an_answer_that_is_none_costs_the_worker_and_its_file(
    pool: AudioPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: bytes
) -> None:
    junk = f"{answer[:9]} + b'[' * {max(0, len(answer) - 9)}"
    deed = f"libc.send(3, b'E' + {junk}, {len(answer) + 1}, 0)"
    monkeypatch.setattr(pool_module, "_wall_seconds", lambda cpu: 60.0)
    use(monkeypatch, tmp_path, deed)
    with sealed(wav(tone(1))) as source:
        with pytest.raises(NotAudioError, match="safely"):
            await pool.probe(source, None, NAMES, LIMIT)
        assert not pool._all
        assert len((await pool.waveform(source, 5))[0]) == 5


def run(machine: Machine, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the filter says to a system call, by the kernel's rules for such programs."""
    data = struct.pack(
        "=IIQ6Q", number, audit or machine.audit, 0, *arguments, *[0] * (6 - len(arguments))
    )
    program = list(struct.iter_unpack("=HBBI", calls.program(machine)))
    at, held = 0, 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        match code:
            case calls.LOAD:
                (held,) = struct.unpack_from("=I", data, value)
            case calls.EQUAL:
                at += yes if held == value else no
            case calls.ANY_BIT:
                at += yes if held & value else no
            case calls.RETURN:
                return value


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_the_filter_lets_through_what_is_listed_and_nothing_else(machine: Machine) -> None:
    right = {"sendto": (3,), "recvmsg": (3,), "mmap": (0, 9, 3, 0x22), "write": (2,)}
    right |= {"prlimit64": (0, 0), "mprotect": (0, 9, 3)}
    listed = {each[machine.column]: name for name, each in CALLS.items()}
    assert len(listed) == len(CALLS)
    for number in (*range(1000), 0x40000000 + 257, 2**32 - 1):
        verdict = run(machine, number, *right.get(listed.get(number, ""), ()))
        assert verdict == (ALLOW if number in listed else REFUSE)
        assert run(machine, number, audit=0x40000003) == KILL


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sendto", (4,)),
        ("recvmsg", (0,)),
        ("write", (1,)),
        ("write", (4,)),
        ("mmap", (0, 9, 7, 0x22)),
        ("mmap", (0, 9, 4, 0x22)),
        ("mmap", (0, 9, 1, 2, 4)),
        ("mprotect", (0, 9, 5)),
        ("prlimit64", (1, 0)),
        ("prlimit64", (0, 7)),
    ],
)
def test_a_listed_call_is_let_through_for_its_purpose_alone(
    machine: Machine, name: str, arguments: tuple[int, ...]
) -> None:
    assert run(machine, CALLS[name][machine.column], *arguments) == REFUSE


def test_it_is_said_what_is_in_force_and_what_is_missing() -> None:
    def refused() -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    none = Sandbox().attempt("a", refused)
    missing = "not to be had on this system: a (Operation not permitted)"
    assert str(none) == f"decoded in processes with limits; {missing}"
    some = none.attempt("b", lambda: None).attempt("c", lambda: None)
    assert str(some).startswith("decoded in a sandbox of b, c; not")
    assert Sandbox.from_words({name: list(each) for name, each in some.words().items()}) == some
