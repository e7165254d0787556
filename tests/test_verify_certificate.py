"""What the verifiers, the command and the one that stands alone, say of what they cannot check."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from app import audit

VERIFIER = Path(__file__).parents[1] / "tools" / "verify_certificate.py"
KEY = "call-archive/a+00000000+" + "A" * 44


def verify(folder: Path, *arguments: str) -> tuple[int, str]:
    ran = subprocess.run(
        [sys.executable, "-I", str(VERIFIER), *arguments],
        cwd=folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert not ran.stdout
    return ran.returncode, ran.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "certificate.json").write_text('{"certificate": "call-archive certificate 1"}')
    (tmp_path / "find.json").write_text('{"recordings": []}')
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "key.txt").write_text(KEY + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("nosuch", KEY),
        ("key.txt", KEY),
        ("find.json", KEY),
        ("list.json", KEY),
        ("certificate.json", "nosuch"),
        ("certificate.json", "find.json"),
    ],
)
def test_what_cannot_be_checked_is_no_failed_proof(folder: Path, file: str, key: str) -> None:
    status, said = verify(folder, file, key)
    assert (status, said.startswith("cannot check: ")) == (2, True)


def test_wrong_usage_is_no_failed_proof(folder: Path) -> None:
    assert verify(folder, "certificate.json")[0] == 2


def test_a_key_is_taken_from_its_file_too(folder: Path) -> None:
    expected = verify(folder, "certificate.json", KEY)
    assert expected[0] == 1
    assert "DOES NOT HOLD" in expected[1]
    assert verify(folder, "certificate.json", "key.txt") == expected


@pytest.mark.parametrize("name", ["_verify_certificate", "_verify_ledger"])
@pytest.mark.parametrize(
    ("file", "key"),
    [("nosuch", KEY), ("find.json", "nosuch"), ("find.json", "list.json"), ("find.json", "a+b")],
)
async def test_the_commands_tell_it_apart_too(
    folder: Path, name: str, file: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key = key if "+" in key else str(folder / key)
    asked = argparse.Namespace(file=folder / file, key=key, json=False, checkpoint=[], witness=None)
    assert await audit._telling(getattr(audit, name))(asked) == 2
    assert "cannot check: " in capsys.readouterr().err
