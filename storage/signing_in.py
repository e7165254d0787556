"""Signing in with a name, a password and a code; and the first time, when the owner of an account
makes a password and sets the code up.

Whatever was wrong, the answer is the same, after the same work: nobody learns from it which names
there are, or whether a password was right. Each is counted before it is looked at
(storage/tries.py), so that guessing is slow.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime

from archive import sign_in
from archive.errors import NotFoundError, UnauthenticatedError
from storage import accounts, ledger, passwords, second_factor, sessions, tries
from storage.accounts import Account
from storage.credentials import Login
from storage.database import Connection, connection
from storage.keyring import Ring
from storage.sessions import Limits, SettingUp
from storage.vault import Vault


@dataclass(frozen=True, slots=True)
class Tried:
    """What somebody typed to sign in, what address it counts for, "" for none, and what the browser
    shows of an earlier sign-in (storage/tries.py).
    """

    name: str
    password: str = field(repr=False)
    code: str = field(repr=False)
    address: str
    browser: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Begun:
    """The secret of a session; `setup`: it opens only the page where it is set up.

    `known`: what the browser shows the next time.
    """

    secret: str = field(repr=False)
    setup: bool
    known: str = field(default="", repr=False)


class SetUpRefusedError(ValueError):
    """A password or a code that cannot be set up: `short`, `long`, `name`, `guessed`, `other` or
    `code`; and where one's own is changed, `wrong`.
    """


_NOBODYS_SECRET = second_factor.new()


async def enter(vault: Vault, tried: Tried, limits: Limits) -> Begun:
    """Sign in. Raises UnauthenticatedError, TooManyError or UnavailableError."""
    ring = vault.ring
    async with vault.passwords.place():
        async with connection(vault.sign_in) as lent:
            account, now = await accounts.named(lent, tried.name)
            lane = tries.lane(ring, tried.name.strip().casefold(), tried.browser, now)
            await tries.count(lent, ring, lane, tried.address)
        known = await passwords.matches(
            ring,
            account.id if account else "",
            tried.password,
            account.password if account else passwords.NOBODYS,
        )
    step = second_factor.step_of(_secret(ring, account), tried.code, now)
    async with connection(vault.sign_in) as lent:
        right = account if account and known and account.opens(now) else None
        if begun := right and await _begin(lent, ring, right, step, limits):
            await tries.forgive(lent, ring, lane, tried.address)
            return replace(begun, known=tries.know(ring, right.name, now))
        await refuse(lent, ring, account.id if account else None)
    raise UnauthenticatedError("The name, the password or the code is wrong.")


def _secret(ring: Ring, account: Account | None) -> str:
    if account is None or account.factor is None:
        return _NOBODYS_SECRET
    return second_factor.unseal(ring, account.id, account.factor)


async def _begin(
    lent: Connection, ring: Ring, account: Account, step: int | None, limits: Limits
) -> Begun | None:
    """Begin the session of somebody whose password is right; None when the code is not, and when
    the account was locked or reset, or its password changed, while the password was looked at.
    """
    async with lent.transaction():
        if not await lent.fetchval(
            "SELECT true FROM account WHERE id = $1 AND locked_at IS NULL AND password = $2"
            " FOR NO KEY UPDATE",
            account.id,
            account.password,
        ):
            return None
        if account.to_be_set_up:
            sealed = second_factor.seal(ring, account.id, second_factor.new())
            return Begun(await sessions.begin_setup(lent, ring, account.id, sealed), setup=True)
        if account.second_factor and not await _accept(lent, account.id, step):
            return None
        return Begun(await sessions.begin(lent, ring, account.id, limits, "password"), setup=False)


async def _accept(lent: Connection, account: str, step: int | None) -> bool:
    """Accept a code, once: only one of a later step than the last that was accepted."""
    return step is not None and bool(
        await lent.fetchval(
            "UPDATE account SET factor_step = $2 WHERE id = $1 AND locked_at IS NULL"
            " AND (factor_step IS NULL OR factor_step < $2) RETURNING true",
            account,
            step,
        )
    )


async def refuse(lent: Connection, ring: Ring, account: str | None) -> None:
    """Write down that somebody was refused, if it is not too often, and who if it is known."""
    failures = await tries.to_be_told(lent, ring, account)
    if failures:
        facts = {"account": account, "failures": failures}
        await ledger.record(lent, ledger.SYSTEM, "sign_in.refused", facts=facts)


async def offered(vault: Vault, setting: SettingUp) -> tuple[Account, str]:
    """Whose account is set up, and the secret of the second factor that is offered."""
    async with connection(vault.sign_in) as lent:
        account = await accounts.of_id(lent, setting.account)
    if account is None:
        raise UnauthenticatedError("The account is gone.")
    return account, second_factor.unseal(vault.ring, account.id, setting.sealed)


async def set_up(
    vault: Vault, setting: SettingUp, password: str, code: str, limits: Limits
) -> Begun:
    """Make the owner's own password and second factor count, and sign in.

    Raises SetUpRefusedError, and UnauthenticatedError when somebody else was first.
    """
    account, secret = await offered(vault, setting)
    async with connection(vault.sign_in) as lent:
        now: datetime = await lent.fetchval("SELECT archive_now()")
    step = second_factor.step_of(secret, code, now)
    if step is None:
        raise SetUpRefusedError("code")
    async with vault.passwords.place():
        kept = await _kept(vault.ring, account, password)
    async with connection(vault.sign_in) as lent, lent.transaction():
        # The password is the one that let in: whoever reset the account meanwhile ended this.
        done = await lent.fetchval(
            "UPDATE account SET password = $2, initial_until = NULL, factor = $3, factor_step = $4"
            " WHERE id = $1 AND locked_at IS NULL AND password = $5 RETURNING true",
            account.id,
            kept,
            setting.sealed,
            step,
            account.password,
        )
        if not done:
            raise UnauthenticatedError("The account was locked or reset just now.")
        await sessions.end_all(lent, account.id)
        await ledger.record(lent, account.id, "account.set_up", facts={"account": account.id})
        secret = await sessions.begin(lent, vault.ring, account.id, limits, "password")
        return Begun(secret, setup=False, known=tries.know(vault.ring, account.name, now))


async def _kept(ring: Ring, account: Account, password: str) -> str:
    """What is stored of a new password, in a place. Raises SetUpRefusedError for one that will not
    do: the one before is known to somebody else, or is no change.
    """
    if fault := sign_in.fault_of(password, account.name):
        raise SetUpRefusedError(fault)
    if await passwords.matches(ring, account.id, password, account.password):
        raise SetUpRefusedError("other")
    if await passwords.is_guessed(password, account.name):
        raise SetUpRefusedError("guessed")
    return await passwords.hashed(ring, account.id, password)


async def local(vault: Vault, login: Login) -> Account | None:
    """The account of who is signed in, if it has a password here."""
    async with connection(vault.sign_in) as lent:
        return await accounts.of_id(lent, login.caller.id) if login.session else None


async def change_password(vault: Vault, login: Login, password: str, new: str) -> None:
    """Let somebody change their own password, who knows it; they are signed out everywhere else.

    Raises SetUpRefusedError, NotFoundError for who has none here, TooManyError.
    """
    ring, account = vault.ring, await local(vault, login)
    if account is None:
        raise NotFoundError("You have no password here.")
    lane = tries.lane_of_owner(ring, account.id)
    async with vault.passwords.place():
        async with connection(vault.sign_in) as lent:
            await tries.count(lent, ring, lane, "")
        right = await passwords.matches(ring, account.id, password, account.password)
        async with connection(vault.sign_in) as lent:
            if not right:
                await refuse(lent, ring, account.id)
                raise SetUpRefusedError("wrong")
            await tries.forgive(lent, ring, lane, "")
        kept = await _kept(ring, account, new)
    async with connection(vault.sign_in) as lent, lent.transaction():
        # As at the setting up: whoever locked or reset the account meanwhile was first.
        if not await lent.fetchval(
            "UPDATE account SET password = $2 WHERE id = $1 AND locked_at IS NULL"
            " AND password = $3 RETURNING true",
            account.id,
            kept,
            account.password,
        ):
            raise UnauthenticatedError("The account was locked or reset just now.")
        await sessions.end_all(lent, account.id, but=login.shown)
        facts = {"account": account.id}
        await ledger.record(lent, account.id, "account.password", facts=facts)
