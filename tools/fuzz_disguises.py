"""What `fuzz_audio` feeds: a sample of every codec, playlists in disguise, and ways to spoil both.

All of it is drawn from the random source that is handed in, so that a case is made again from its
number.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.storage import soundfiles
from tests.storage.soundfiles import ALAW, FLOAT, G729, MEDIA, MULAW, encoded, noise, tone, wav

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
MOST = 30_000
"""Bytes of a sample that are used: faults lie in headers and frames, not in length."""

EXTREMES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000)
NAMES = (b"fmt ", b"data", b"ds64", b"fact", b"moov", b"trak", b"stsz", b"stsc", b"stco", b"stts")
NAMES += (b"mdhd", b"mvhd", b"stsd", b"esds", b"mdat", b"OggS", b"OpusHead", b"vorbis", b"fLaC")
NAMES += (b"\x1aE\xdf\xa3", b"\x18S\x80g", b"\x1fC\xb6u", b"ID3", b"Xing", b"#!AMR", b"dref")
RAW = ("audio/PCMA", "audio/PCMU", "audio/L16;rate=8000", "audio/GSM", "audio/G729")
RAW += ("audio/PCMA;channels=16", "audio/L16;rate=384000;channels=2")


def samples() -> list[bytes]:
    """One of every codec that is taken, and the sample calls."""
    pcm, stereo, loud = tone(0.5), tone(0.5, channels=2), tone(0.5, 48000)
    made = [
        *(wav(pcm), wav(stereo, channels=2), wav(noise(4000), bits=8), soundfiles.rf64(pcm)),
        *(
            wav(noise(6000), bits=24),
            wav(noise(8000), bits=32),
            wav(noise(8000), tag=FLOAT, bits=32),
        ),
        *(wav(noise(4000), tag=tag, bits=8) for tag in (ALAW, MULAW)),
        wav(noise(500), tag=G729, bits=0, block=10),
        *(encoded("wav", codec, pcm) for codec in ("adpcm_ms", "adpcm_ima_wav", "g726")),
        encoded("ipod", "alac", pcm),
        *(soundfiles.mp3(0.5), soundfiles.mp3(0.5, 2)),
        *(_exact("ogg", "libopus", loud, each) for each in (1, 2)),
        *(soundfiles.flac(0.5), soundfiles.flac(0.5, 2), soundfiles.amr(0.5)),
        *(soundfiles.m4a(0.5), soundfiles.m4a(0.5, moov_first=True)),
        *(_exact("webm", "libopus", loud, 1, live=live) for live in ("0", "1")),
        b"#!AMR-WB\n" + b"".join(b"\x44" + noise(60, seed) for seed in range(20)),
        *(noise(3300), noise(1000)),
    ]
    files = sorted([*MEDIA.iterdir(), *SAMPLES.glob("*.*")])
    found = [each.read_bytes()[:MOST] for each in files if each.suffix not in (".md", ".json")]
    return made + found


def _exact(container: str, codec: str, pcm: bytes, channels: int, **options: str) -> bytes:
    """Encoded without the random numbers that these containers have otherwise."""
    options["fflags"] = "+bitexact"
    return encoded(container, codec, pcm, rate=48000, channels=channels, options=options)


class Playlists:
    """Bodies that name the canary: `file` by its path, `port` on this machine."""

    def __init__(self, file: Path, port: int) -> None:
        path, web = str(file), f"http://127.0.0.1:{port}/x.wav"
        self._texts = [
            text.encode()
            for place in (path, f"file://{path}", f"file:{path}", web, web.replace("http", "tcp"))
            for text in (
                f"#EXTM3U\n#EXTINF:10,\n{place}\n#EXT-X-ENDLIST\n",
                f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{place}"\n#EXTINF:1,\nx.ts\n',
                f'#EXTM3U\n#EXT-X-MAP:URI="{place}"\n#EXTINF:1,\n{place}\n',
                f"[playlist]\nFile1={place}\nNumberOfEntries=1\n",
                f"ffconcat version 1.0\nfile '{place}'\n",
                f"file '{place}'\n",
                f'<asx version="3.0"><entry><ref href="{place}"/></entry></asx>',
                f'<?xml version="1.0"?><MPD><BaseURL>{place}</BaseURL></MPD>',
                f"RTSPtext\n{place}\n",
                f"{place}\n",
            )
        ]
        for protocol in ("RTP/AVP 8", "RTP/SAVP 0", "udp 33"):
            head = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            self._texts.append(f"{head}m=audio {port} {protocol}\r\n".encode())
        self._path = path.encode()

    def disguised(self, fate: Random, whole: list[bytes]) -> bytes:
        """A playlist, session description or reference, made to look like audio."""
        text = fate.choice(self._texts)
        body = fate.choice(whole)
        tag = b"ID3\x04\0\0" + bytes((0, 0, len(text) >> 7 & 127, len(text) & 127))
        return fate.choice(
            (
                *(text, text, b"\xef\xbb\xbf" + text, b"\r\n" + text, text.upper(), text * 50),
                *(text.decode().encode("utf-16"), tag + text, b"ID3\x04\0\0\0\0\0\0" + text),
                *(wav(text), b"RIFF" + text, body[:4] + text, body[:40] + text, body[:400] + text),
                *(body + text, text + body, wav(text, tag=85, bits=0), b"OggS\0" + text),
                *(b"#!AMR\n" + text, b"\xff\xfb\x90\x00" + text, b"\x1aE\xdf\xa3" + text),
                *(b"\0\0\0\x18ftypM4A " + text, b"\0\0\0\x20rmra" + text, refers(self._path)),
            )
        )


def refers(path: bytes) -> bytes:
    """An M4A whose audio is said to lie in another file (the box `dref`, with an alias)."""
    where = struct.pack(">HH", 2, len(path)) + path + b"\0" * (len(path) % 2) + b"\xff\xff\0\0"
    alias = bytes(14) + b"\x01v" + bytes(38) + b"\x01c" + bytes(62 + 16)
    alias += struct.pack(">HH", 1, 1) + bytes(16) + where
    entry = struct.pack(">I", len(alias) + 8) + b"alis" + alias
    return _put(soundfiles.m4a(0.5), [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"], entry)


def _put(body: bytes, names: list[bytes], entry: bytes) -> bytes:
    """Let `entry` be all that the box at the end of the path `names` has, and mend the lengths."""
    at = 0
    while at + 8 <= len(body):
        (size,) = struct.unpack_from(">I", body, at)
        if body[at + 4 : at + 8] == names[0] and size >= 8:
            inside = body[at + 8 : at + size]
            new = _put(inside, names[1:], entry) if names[1:] else inside[:8] + entry
            box = struct.pack(">I", len(new) + 8) + names[0] + new
            return body[:at] + box + body[at + size :]
        at += max(size, 8)
    return body


def _flip(body: bytearray, fate: Random, _: list[bytes]) -> None:
    for _each in range(fate.choice((1, 1, 3, 30, 300))):
        body[fate.randrange(len(body))] ^= 1 << fate.randrange(8)


def _header(body: bytearray, fate: Random, _: list[bytes]) -> None:
    for _each in range(fate.choice((1, 2, 8))):
        body[fate.randrange(min(len(body), 300))] = fate.choice((0, 255, fate.randrange(256)))


def _cut(body: bytearray, fate: Random, _: list[bytes]) -> None:
    del body[fate.randrange(1, len(body) + 1) :]


def _drop(body: bytearray, fate: Random, _: list[bytes]) -> None:
    start = fate.randrange(len(body))
    del body[start : start + fate.choice((1, 4, 100, 3000))]


def _insert(body: bytearray, fate: Random, _: list[bytes]) -> None:
    at = fate.randrange(len(body) + 1)
    body[at:at] = fate.randbytes(fate.choice((1, 2, 4, 100, 3000)))


def _again(body: bytearray, fate: Random, _: list[bytes]) -> None:
    start = fate.randrange(len(body))
    body[start:start] = body[start : start + fate.choice((4, 60, 1000))] * fate.choice((1, 2, 20))


def _splice(body: bytearray, fate: Random, whole: list[bytes]) -> None:
    other = fate.choice(whole)
    start = fate.randrange(len(body))
    body[start:] = other[fate.randrange(len(other)) :]


def _append(body: bytearray, fate: Random, whole: list[bytes]) -> None:
    body += fate.choice(whole)


def _number(body: bytearray, fate: Random, at: int) -> None:
    """Write a number that is about to overflow, of either byte order, at a place."""
    width, order = fate.choice((1, 2, 4, 4, 4, 8)), fate.choice(("little", "big"))
    value = fate.choice((*EXTREMES, -1, -2, len(body), len(body) + 1, fate.randrange(1 << 32)))
    at = max(0, at)
    body[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, order)


def _anywhere(body: bytearray, fate: Random, _: list[bytes]) -> None:
    _number(body, fate, fate.randrange(len(body)))


def _length(body: bytearray, fate: Random, _: list[bytes]) -> None:
    """A length or another field beside one of the names that formats give their parts."""
    places = [at for name in NAMES if (at := body.find(name)) >= 0]
    for _each in range(fate.choice((1, 1, 2, 4))):
        _number(body, fate, fate.choice(places or [0]) + fate.choice((-4, 4, 4, 8, 12, 16, 20, 24)))


WAYS: tuple[Callable[[bytearray, Random, list[bytes]], None], ...] = (
    *(_flip, _header, _cut, _drop, _insert, _again, _splice, _append, _anywhere, _length, _length),
)


def case(fate: Random, whole: list[bytes], lists: Playlists) -> tuple[bytes, str | None]:
    """A body and its declared type."""
    if fate.random() < 0.15:
        body = bytearray(lists.disguised(fate, whole))
        times = fate.choice((0, 0, 1))
    else:
        body, times = bytearray(fate.choice(whole)), fate.choice((1, 1, 2, 5))
    for _ in range(times):
        if body:
            fate.choice(WAYS)(body, fate, whole)
    return bytes(body), fate.choice(RAW) if fate.random() < 0.15 else None
