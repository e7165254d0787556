"""Generated requests against the running doors: what their OpenAPI pages allow, and what they do
not, with every kind of key.

    .venv/bin/python tools/fuzz_doors.py --requests 100000 --seed 1

Each door runs in a process of its own, over a real database and a real store, with a share of the
requests. schemathesis makes them of the door's `/openapi.json`, and all its checks judge the
answers: no server error, nothing that breaks a schema, nothing that is not documented, nothing
refused that the page allows but for what a page cannot say, nothing taken that it forbids. Besides,
who has no right key gets 401 or 403 and nothing else. A seed makes the same requests again, but for
the time of day and the keys. The exit status is 0 when nothing was found.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import requests  # noqa: E402
import schemathesis  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from schemathesis.checks import CHECKS, load_all_checks  # noqa: E402
from schemathesis.core.failures import FailureGroup  # noqa: E402

from storage import schema  # noqa: E402
from tests.postgres import Postgres  # noqa: E402
from tests.services import Service, open_service, open_vault  # noqa: E402
from tests.sounds import tone  # noqa: E402
from tests.stores.servers import running_rclone  # noqa: E402
from tests.web.test_openapi import DOCUMENTS  # noqa: E402
from tests.web.test_openapi_answers import LEVEL, make_likely  # noqa: E402
from tests.web.test_upload import query  # noqa: E402
from tools.fuzz_cases import TUS, began, is_beyond_schemas, put_right  # noqa: E402
from web.limits import Limits  # noqa: E402
from web.openapi import Door  # noqa: E402

BATCH = 50
"""Requests of one operation before it is the next one's turn."""

WHO = ("right", "right", "right", "right", "none", "unknown", "garbled", "other")
"""Which key a request has: most have the right one, or little would be reached."""

LIKELY = (True, False, False)
"""Which requests get what chance does not find, and are more alike for it."""

UNSAYABLE = ["409", "410", "413", "415", "416", "422", "429", "503"]
"""What may be said to a request that the page allows: whether a body is audio, a time is of the
last year and a call is known, no schema can say."""

SAID_FIRST = ["412", "413"]
"""What is said before the rest of a wrong request is looked at: tus's, to who does not name its
version or names another; and that a body is too large."""


def _lost_its_key(case: Any) -> bool:
    """Whether the key is what was taken out of a request to make it wrong."""
    wrongs = getattr(case.meta.phase.data, "mutations", ()) if case.meta else ()
    return any("Authorization" in f"{each.parameter} {each.original_value}" for each in wrongs)


def _shape(sent: requests.PreparedRequest) -> int:
    """What tells a request from others: all but the number that schemathesis gives it."""
    headers = {**sent.headers, "X-Schemathesis-TestCaseId": ""}
    return hash((sent.method, sent.url, str(sorted(headers.items())), sent.body))


@dataclass
class Found:
    """What was asked and what came of it."""

    asked: int = 0
    different: set[int] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)


class Asker:
    """Asks one door."""

    def __init__(self, service: Service, door: Door, known: str) -> None:
        self._service, self._door, self._known = service, door, known
        self._address: str = getattr(service, door)
        self._session = requests.Session()
        self.found = Found()
        load_all_checks()
        self._checks = CHECKS.get_all()
        self._accepts = CHECKS.get_one("positive_data_acceptance")
        # What was put in place of chance is bytes, where schemathesis looks for text; and the key
        # is put in place of what it made up.
        self._rejects = CHECKS.get_one("negative_data_rejection")
        self.schema = schemathesis.openapi.from_dict(DOCUMENTS[door])
        checks = self.schema.config.checks
        accepted = checks.positive_data_acceptance
        accepted.expected_statuses = [*accepted.expected_statuses, *UNSAYABLE]
        for check in (checks.negative_data_rejection, checks.missing_required_header):
            check.expected_statuses = [*check.expected_statuses, *SAID_FIRST]

    def ask(self, case: Any, who: str, kind: str) -> None:
        """Send one request and judge its answer."""
        judged = put_right(case) if kind == "likely" else not is_beyond_schemas(case)
        secured = bool(case.operation.definition.raw.get("security"))
        made_up = case.headers.pop("Authorization", None) is not None or _lost_its_key(case)
        key = {} if who == "none" else {"Authorization": self._key(who)}
        if who == "right":
            # A form of the sign-in pages is read only when it comes from one of them.
            key["Sec-Fetch-Site"] = "same-origin"
        self.found.asked += 1
        self.found.kinds[f"{kind}, {who} key"] += 1
        answer = case.call(base_url=self._address, session=self._session, headers=key, timeout=60)
        self.found.different.add(_shape(answer.request))
        self.found.statuses[answer.status_code] += 1
        if secured and who != "right" and answer.status_code < 400:
            self._fault(f"{case.operation.label}: {answer.status_code} with {who} key", case)
        try:
            excluded = [] if judged else [self._accepts]
            # Who is sent to sign in was refused.
            led = answer.headers.get("location", [""])[0].startswith("/sign-in")
            excluded += [self._rejects] if made_up or led or kind == "likely" else []
            case.validate_response(
                answer,
                checks=self._checks,
                excluded_checks=excluded,
                headers=key,
                transport_kwargs={"session": self._session, "timeout": 60},
            )
        except FailureGroup as group:
            for failure in group.exceptions:
                what = f"{case.operation.label}: {type(failure).__name__} {answer.status_code}"
                self._fault(what, f"{failure}\n{group}"[:3000])

    @contextmanager
    def _upload(self, case: Any, kind: str) -> Iterator[None]:
        """An upload that was begun, for what is asked about one."""
        if kind != "likely" or not case.path.startswith(f"{TUS}/"):
            yield
            return
        headers = {"Authorization": self._key("right"), "Tus-Resumable": "1.0.0"}
        begun = self._session.post(
            f"{self._address}{TUS}", headers={**headers, **began()}, timeout=60
        )
        begun.raise_for_status()
        case.path_parameters["id"] = begun.headers["Location"].rpartition("/")[2]
        yield
        self._session.delete(
            f"{self._address}{begun.headers['Location']}", headers=headers, timeout=60
        )

    def _fault(self, what: str, detail: object) -> None:
        if what not in self.found.faults:
            self.found.faults[what] = str(detail)
            print(f"FAULT {self._door} {what}\n{detail}", file=sys.stderr, flush=True)

    def _key(self, who: str) -> str:
        tokens = self._service.tokens
        other = "auditor" if self._door != "operations" else "supervisor"
        return {
            "right": f"Bearer {tokens[LEVEL[self._door]]}",
            "unknown": f"Bearer {tokens['admin'][:-12]}aaaaaaaaaaaa",
            "garbled": "Basic \xe4\xf6==",
            "other": f"Bearer {tokens[other]}",
        }[who]

    def go(self, number: int, first: int, minutes: float) -> None:
        """Ask so many times, from this seed on, but not much longer than so many minutes."""
        until = time.monotonic() + minutes * 60
        self._cover(number // 5)
        while self.found.asked < number and time.monotonic() < until:
            for operation in self._operations():
                for mode in schemathesis.GenerationMode:
                    if self.found.asked < number and time.monotonic() < until:
                        self._generate(operation, mode, first)
                        first += 1

    def _operations(self) -> Iterator[Any]:
        for result in self.schema.get_all_operations():
            yield result.ok()

    def _cover(self, most: int) -> None:
        """Ask what no chance is needed for: each bound, each missing part, each other method."""
        for operation in self._operations():
            cases = self.schema.iter_coverage_cases(
                operation,
                generation_modes=list(schemathesis.GenerationMode),
                generation_config=self.schema.config.generation,
            )
            for number, case in enumerate(cases):
                if number >= most:
                    break
                self.ask(case, "right", "coverage")

    def _generate(self, operation: Any, mode: Any, first: int) -> None:
        raw = operation.definition.raw
        if mode is schemathesis.GenerationMode.NEGATIVE and not (
            raw.get("parameters") or operation.body
        ):
            return

        @seed(first)
        @settings(
            max_examples=BATCH, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(
            operation.as_strategy(generation_mode=mode),
            st.sampled_from(LIKELY),
            st.sampled_from(WHO),
        )
        def fuzz(case: Any, likely: bool, who: str) -> None:
            kind = mode.value
            if likely and mode is schemathesis.GenerationMode.POSITIVE:
                make_likely(case, self._known)
                kind = "likely"
            with self._upload(case, kind):
                self.ask(case, who, kind)

        fuzz()


async def _ask(
    door: Door, number: int, first: int, minutes: float, postgres: Postgres, folder: Path
) -> Found:
    """Ask one door, over servers of its own."""
    url = await postgres.fresh_database(schema.migrate)
    everybody = Limits(100_000, 100_000, (ip_network("127.0.0.0/8"),))
    with running_rclone(folder / "s3") as server:
        async with AsyncExitStack() as stack:
            store = await server.connect()
            stack.push_async_callback(store.close)
            vault = await stack.enter_async_context(open_vault(url, store, folder))
            service = await stack.enter_async_context(open_service(vault, everybody))
            kept = await (await service.put("known", tone(), query())).json()
            asker = Asker(service, door, kept["id"])
            await asyncio.to_thread(asker.go, number, first, minutes)
            return asker.found


def _one(door: Door, number: int, first: int, minutes: float) -> int:
    """Ask one door, and print what was found as JSON."""
    postgres = Postgres()
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(_ask(door, number, first, minutes, postgres, Path(folder)))
    finally:
        postgres.stop()
    print(
        json.dumps(
            {
                "door": door,
                "asked": found.asked,
                "different": len(found.different),
                "statuses": dict(sorted(found.statuses.items())),
                "kinds": dict(sorted(found.kinds.items())),
                "faults": sorted(found.faults),
            }
        )
    )
    return int(bool(found.faults))


def _all(number: int, first: int, minutes: float) -> int:
    """Ask all doors at once, each in a process."""
    started = time.monotonic()
    share = -(-number // len(DOCUMENTS))
    arguments = [sys.executable, __file__, "--requests", str(share), "--seed", str(first)]
    arguments += ["--minutes", str(minutes)]
    children = [
        subprocess.Popen([*arguments, "--door", door], stdout=subprocess.PIPE)  # noqa: S603
        for door in DOCUMENTS
    ]
    asked, different, faults = 0, 0, 0
    kinds: Counter[str] = Counter()
    for child in children:
        out, _ = child.communicate()
        print(out.decode(), end="")
        if child.returncode not in (0, 1) or not out:
            faults += 1
            continue
        told = json.loads(out.splitlines()[-1])
        asked, different = asked + told["asked"], different + told["different"]
        faults += len(told["faults"])
        for kind, count in told["kinds"].items():
            kinds[kind.partition(",")[0]] += count
    took = time.monotonic() - started
    shares = ", ".join(f"{count / asked:.0%} {kind}" for kind, count in kinds.most_common())
    print(f"seed {first}: {asked} requests in {took:.0f} s, {faults} kinds of fault;", end=" ")
    print(f"{different / max(asked, 1):.0%} different; {shares}")
    return int(bool(faults) or asked < number)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="stop after so many")
    parser.add_argument("--door", choices=list(DOCUMENTS))
    given_ = parser.parse_args()
    if given_.door:
        return _one(given_.door, given_.requests, given_.seed, given_.minutes)
    return _all(given_.requests, given_.seed, given_.minutes)


if __name__ == "__main__":
    sys.exit(main())
