"""A font whose every letter is the same block: pages that are written in it are laid out alike
wherever they are drawn, whichever fonts a machine has.

It is TrueType of the least that a browser takes: https://learn.microsoft.com/typography/opentype/
"""

import base64
import struct

EM, ASCENT, DESCENT, ADVANCE = 1000, 800, -200, 500
RANGES = ((0x20, 0x24F), (0x2000, 0x22FF))
"""Which characters it has: Latin, and the signs that pages use."""

_BLANK = {0x20, 0xA0, *range(0x2000, 0x2010), 0x202F}
_LEFT, _TOP, _RIGHT = 50, 520, 450


def style() -> str:
    """The style that writes a whole page in it; no weight is made bolder."""
    packed = base64.b64encode(font()).decode()
    return (
        f"@font-face {{ font-family: Blocks; src: url(data:font/ttf;base64,{packed});"
        " font-weight: 1 1000; }"
        " *, ::before, ::after { font-family: Blocks !important; font-synthesis: none !important; }"
    )


def font() -> bytes:
    """The file."""
    letters = [code for first, last in RANGES for code in range(first, last + 1)]
    block = struct.pack(
        ">5h 2H 4B 8h", 1, _LEFT, 0, _RIGHT, _TOP, 3, 0, *[1] * 4,
        _LEFT, _RIGHT - _LEFT, 0, _LEFT - _RIGHT, 0, 0, _TOP, 0,
    ) + b"\0\0"  # fmt: skip
    shapes = [block, *(b"" if code in _BLANK else block for code in letters)]
    places = [0]
    for shape in shapes:
        places.append(places[-1] + len(shape))
    return _file(
        {
            b"OS/2": _os2(letters),
            b"cmap": _cmap(),
            b"glyf": b"".join(shapes),
            b"head": _head(),
            b"hhea": struct.pack(
                ">I 3h H 11h H", 0x10000, ASCENT, DESCENT, 0, ADVANCE, *[0] * 3, 1, *[0] * 7, 1
            ),
            b"hmtx": struct.pack(">Hh", ADVANCE, _LEFT)
            + struct.pack(f">{len(letters)}h", *[_LEFT] * len(letters)),
            b"loca": struct.pack(f">{len(places)}I", *places),
            b"maxp": struct.pack(">I 14H", 0x10000, len(shapes), 4, 1, 0, 0, 2, *[0] * 8),
            b"name": _name(),
            b"post": struct.pack(">I i 2h 5I", 0x30000, 0, -100, 50, 0, 0, 0, 0, 0),
        }
    )


def _file(tables: dict[bytes, bytes]) -> bytes:
    """The tables behind their directory; a browser makes the checksums itself."""
    count = len(tables)
    power = count.bit_length() - 1
    head = struct.pack(">I 4H", 0x10000, count, 16 << power, power, (count - (1 << power)) * 16)
    at, entries, body = len(head) + 16 * count, b"", b""
    for tag, content in tables.items():
        entries += tag + struct.pack(">3I", 0, at + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    return head + entries + body


def _cmap() -> bytes:
    """Format 4: each range is a segment, whose letters follow each other in the font."""
    ends, starts, deltas, glyph = [], [], [], 1
    for first, last in RANGES:
        ends.append(last)
        starts.append(first)
        deltas.append((glyph - first) % 0x10000)
        glyph += last - first + 1
    ends, starts, deltas = [*ends, 0xFFFF], [*starts, 0xFFFF], [*deltas, 1]
    count = len(ends)
    power = count.bit_length() - 1
    body = struct.pack(">4H", 2 * count, 2 << power, power, 2 * count - (2 << power))
    body += struct.pack(f">{count}H H {count}H {count}H", *ends, 0, *starts, *deltas)
    body += struct.pack(f">{count}H", *[0] * count)
    return struct.pack(">2H 2HI", 0, 1, 3, 1, 12) + struct.pack(">3H", 4, 6 + len(body), 0) + body


def _head() -> bytes:
    return struct.pack(
        ">4I 2H 2Q 4h 2H 3h", 0x10000, 0x10000, 0, 0x5F0F3CF5, 0, EM, 0, 0,
        _LEFT, 0, _RIGHT, _TOP, 0, 8, 2, 1, 0,
    )  # fmt: skip


def _os2(letters: list[int]) -> bytes:
    last = min(letters[-1], 0xFFFF)
    return struct.pack(
        ">H h 3H 11h 10s 4I 4s 3H 3h 2H 2I 2h 3H", 4, ADVANCE, 400, 5, 0, *[0] * 11, b"\0" * 10,
        1, 0, 0, 0, b"NONE", 0x40, letters[0], last, ASCENT, DESCENT, 0, ASCENT, -DESCENT,
        1, 0, _TOP, _TOP, 0, 0x20, 1,
    )  # fmt: skip


def _name() -> bytes:
    texts = {1: "Blocks", 2: "Regular", 4: "Blocks", 6: "Blocks"}
    held, records = b"", b""
    for number, text in texts.items():
        raw = text.encode("utf-16-be")
        records += struct.pack(">6H", 3, 1, 0x409, number, len(raw), len(held))
        held += raw
    return struct.pack(">3H", 0, len(texts), 6 + len(records)) + records + held
