"""How audio of each container is called outside: its media type, and the ending of a file."""

_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "webm": "audio/webm",
    "amr": "audio/AMR",
}


def named(container: str) -> tuple[str, str]:
    """Media type and ending. A headerless recording keeps its declared type where others have a
    container's name.
    """
    if container in _TYPES:
        return _TYPES[container], container
    return container if "/" in container else "application/octet-stream", "raw"
