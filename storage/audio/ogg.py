"""Does an Ogg end as it should? Its last page tells (RFC 3533), and FFmpeg keeps silent of it."""

from typing import BinaryIO

_PAGE = 27 + 255 + 255 * 255  # bytes of the longest page
_END_OF_STREAM = 4


def ends_well(reader: BinaryIO, size: int) -> bool:
    """Is the last page whole, and marked as the last one?"""
    start = max(0, size - 2 * _PAGE)
    reader.seek(start)
    tail = reader.read(size - start)
    last = tail.rfind(b"OggS")
    page = tail[last:]
    if last < 0 or len(page) < 27:
        return False
    segments = page[26]
    lengths = page[27 : 27 + segments]
    whole = len(lengths) == segments and len(page) >= 27 + segments + sum(lengths)
    return whole and bool(page[5] & _END_OF_STREAM)
