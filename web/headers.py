"""What every answer of every door says of itself to browsers and proxies, in one place: run
nothing, embed nothing, tell nobody where you come from, keep nothing.

An answer that needs more, such as a page, sets its own header first; what is not set stays shut.
"""

from aiohttp import hdrs, web

from web import trace, tus

_SHUT = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

DATA = f"{_SHUT}; sandbox"
"""The policy of what is no page, should a browser show it all the same."""

_POLICY = "Content-Security-Policy"

_FEATURES = (
    "accelerometer", "autoplay", "bluetooth", "camera", "clipboard-read", "display-capture",
    "encrypted-media", "fullscreen", "geolocation", "gyroscope", "hid", "idle-detection",
    "local-fonts", "magnetometer", "microphone", "midi", "payment", "picture-in-picture",
    "screen-wake-lock", "serial", "usb", "web-share", "xr-spatial-tracking",
)  # fmt: skip

_ALWAYS = {
    _POLICY: DATA,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in _FEATURES),
    hdrs.CACHE_CONTROL: "private, no-store",
}

_TRANSPORT = "Strict-Transport-Security"
_A_YEAR = "max-age=31536000; includeSubDomains"


def styled(digest: str) -> str:
    """The policy of a page that is one file, to be kept and printed: the style of this digest."""
    return f"{_SHUT}; style-src 'sha256-{digest}'; sandbox"


def dress(response: web.StreamResponse, *, secure: bool) -> None:
    """Put on an answer what it does not say itself; `secure`: it goes out over TLS."""
    for name, value in _ALWAYS.items():
        response.headers.setdefault(name, value)
    # aiohttp tells its own version, and Python's.
    response.headers[hdrs.SERVER] = "call-archive"
    if (traced := trace.CURRENT.get()) is not None:
        response.headers[trace.HEADER] = traced.id
    if secure:
        response.headers.setdefault(_TRANSPORT, _A_YEAR)


async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    """The same as a signal of an application, before any head is sent."""
    # The transport's own word: a header that claims https can be written by anybody.
    transport = request.transport
    secure = transport is not None and transport.get_extra_info("sslcontext") is not None
    dress(response, secure=secure)
    tus.dress(request, response)
