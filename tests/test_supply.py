"""What is installed is locked and told; an audit that could not ask does not say "all is well"."""

import json
import re
import subprocess
import sys
import tomllib
from base64 import b64encode
from pathlib import Path

import pytest

from tools import audit, sbom

ROOT = Path(__file__).parent.parent
RUN = (ROOT / "requirements/run.txt").read_text()
LOCK = json.loads((ROOT / "frontend/package-lock.json").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_bill_names_every_locked_package_with_its_hashes() -> None:
    made = sbom.bill(RUN, PROJECT)
    locked = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", RUN, re.MULTILINE)
    assert [(each["name"], each["version"]) for each in made["components"]] == locked
    told = {
        one["content"]
        for each in made["components"]
        for one in each["externalReferences"][0]["hashes"]
    }
    assert told == set(re.findall(r"sha256:([0-9a-f]{64})", RUN))
    refs = [each["bom-ref"] for each in made["components"]]
    assert made["dependencies"][0]["dependsOn"] == refs
    assert len(refs) == len(set(refs))
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")


def test_the_bill_is_the_same_each_time() -> None:
    command = [sys.executable, str(ROOT / "tools/sbom.py")]
    first, second = (subprocess.run(command, capture_output=True, check=True) for _ in range(2))
    assert first.stdout == second.stdout
    assert json.loads(first.stdout) == sbom.bill(RUN, PROJECT, sbom.bundled(LOCK))
    assert sbom.bill(RUN, PROJECT)["serialNumber"] not in first.stdout.decode()


def test_the_bill_names_what_browsers_get() -> None:
    """What the pages import, by the hash that npm installs it by, and none of the tools."""
    imported = {
        name
        for page in (ROOT / "frontend/src").glob("*.js")
        for name in re.findall(r'from "([^."][^"]*)"', page.read_text())
    }
    made = sbom.bundled(LOCK)
    assert {each["name"] for each in made} == {*LOCK["packages"][""]["dependencies"]}
    assert {"wavesurfer.js"} == {name.partition("/")[0] for name in imported}
    [wave] = made
    [told] = wave["externalReferences"][0]["hashes"]
    locked = LOCK["packages"]["node_modules/wavesurfer.js"]
    assert wave["purl"] == f"pkg:npm/wavesurfer.js@{locked['version']}"
    assert told["alg"] == "SHA-512"
    assert b64encode(bytes.fromhex(told["content"])).decode() == locked["integrity"][7:]


@pytest.mark.parametrize("loose", ["aiohttp>=3", "aiohttp==3.1", "-e .", "--index-url x"])
def test_what_is_not_locked_has_no_bill(loose: str) -> None:
    with pytest.raises(ValueError, match=r"neither|no hash"):
        sbom.bill(loose, PROJECT)


@pytest.mark.parametrize("name", ["run", "dev", "bench"])
def test_every_locked_file_pins_and_hashes_all(name: str) -> None:
    assert sbom.bill((ROOT / f"requirements/{name}.txt").read_text(), PROJECT)["components"]


ANSWERS = [
    ({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}, 0, "1 packages, 0 known"),
    (
        {
            "dependencies": [
                {"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}
            ]
        },
        1,
        "a 1: X-1, mended in 2",
    ),
    ({"dependencies": [{"name": "a", "skip_reason": "away"}]}, 2, "COULD NOT ASK about a"),
    (None, 2, "COULD NOT ASK, so nothing is known: no route"),
]


@pytest.mark.parametrize(("answer", "status", "word"), ANSWERS)
def test_an_audit_that_could_not_ask_says_so(
    answer: object, status: int, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = tmp_path / "pip-audit"
    told = "echo 'no route' >&2; exit 1" if answer is None else f"echo '{json.dumps(answer)}'"
    said.write_text(f"#!/bin/sh\n{told}\n")
    said.chmod(0o755)
    assert audit.main(str(said), ["locked.txt"]) == status
    assert word in capsys.readouterr().out


def test_ci_does_not_ask_outside() -> None:
    make = (ROOT / "Makefile").read_text()
    for target in ("test", "lint", "check"):
        [needs] = re.findall(rf"^{target}:(.*)$", make, re.MULTILINE)
        assert "audit" not in needs
