"""A browser as the doors see one: it keeps cookies, says which site a request comes from, and
follows nothing by itself."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http.cookies import SimpleCookie

import aiohttp
import pyotp
import yarl

from archive.access import Level
from storage import accounts
from storage.credentials import UNLIMITED, Limits
from storage.vault import Vault
from tests.roles import connection
from tests.services import Service

OWN = "a password of one's own"


@dataclass(slots=True)
class Browser:
    """Its cookies at one door; `door` is its address."""

    service: Service
    door: str
    cookies: dict[str, str] = field(default_factory=dict)
    set_cookies: list[str] = field(default_factory=list)
    secret: str = ""

    async def ask(
        self, method: str, path: str, fields: Mapping[str, str] | None = None, **headers: str
    ) -> aiohttp.ClientResponse:
        """One request as a page of this door makes it, unless the headers say otherwise."""
        url = yarl.URL(self.door + path, encoded=True)
        sent = {
            "Sec-Fetch-Site": "same-origin",
            "Origin": self.door,
            **({"Cookie": self._shown()} if self.cookies else {}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        answer = await self.service.session.request(
            method,
            url,
            data=fields,
            headers={name: value for name, value in sent.items() if value},
            allow_redirects=False,
            cookies=None,
        )
        await answer.read()
        self.service.session.cookie_jar.clear()
        self.set_cookies = answer.headers.getall("Set-Cookie", [])
        for text in self.set_cookies:
            for name, morsel in SimpleCookie(text).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return answer

    def _shown(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    async def get(self, path: str, **headers: str) -> aiohttp.ClientResponse:
        return await self.ask("GET", path, **headers)

    async def enter(
        self, name: str, password: str, code: str = "", to: str = "", **headers: str
    ) -> aiohttp.ClientResponse:
        """Send the form of the sign-in page."""
        fields = {"name": name, "password": password, "code": code, "to": to}
        return await self.ask("POST", "/sign-in", fields, **headers)

    async def token(self, path: str = "/sign-in") -> str:
        """The token that a page of the session carries."""
        return hidden(await (await self.get(path)).text(), "csrf")

    async def set_up(self, password: str = OWN) -> aiohttp.ClientResponse:
        """Set the account up, once its first password let in."""
        page = await (await self.get("/sign-in/setup")).text()
        found = re.search(r"<code>([A-Z2-7 ]+)</code>", page)
        assert found
        self.secret = found[1].replace(" ", "")
        code = await code_of(self.service.vault, self.secret)
        fields = {"csrf": hidden(page, "csrf"), "password": password, "again": password}
        return await self.ask("POST", "/sign-in/setup", {**fields, "code": code})

    @property
    def session(self) -> str:
        return self.cookies["__Host-session"]


def hidden(page: str, name: str) -> str:
    """What a hidden field of a page holds."""
    found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)"', page)
    assert found, page
    return found[1]


async def code_of(vault: Vault, secret: str, steps: int = 0) -> str:
    """The code that an application shows, so many steps of 30 s from now."""
    async with connection(vault.pool) as lent:
        now: datetime = await lent.fetchval("SELECT archive_now()")
    return pyotp.TOTP(secret).generate_otp(int(now.timestamp()) // 30 + steps)


async def account(
    vault: Vault, name: str, level: Level = Level.SUPERVISOR, limits: Limits = UNLIMITED
) -> str:
    """Make an account; its first password."""
    async with connection(vault.pool) as lent:
        return await accounts.add(lent, vault.ring, name, level, limits)


async def signed_in(
    service: Service,
    name: str = "anna",
    level: Level = Level.SUPERVISOR,
    limits: Limits = UNLIMITED,
) -> Browser:
    """A browser of somebody new, who has set the account up."""
    readers = (Level.SUPERVISOR, Level.PRIVACY)
    browser = Browser(service, service.retrieval if level in readers else service.operations)
    first = await account(service.vault, name, level, limits)
    assert (await browser.enter(name, first)).headers["Location"].startswith("/sign-in/setup")
    answer = await browser.set_up()
    assert (answer.status, answer.headers.get("Location")) == (303, "/"), await answer.text()
    return browser
