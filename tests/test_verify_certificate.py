"""What the verifier that stands alone says of what it cannot check."""

import subprocess
import sys
from pathlib import Path

import pytest

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
