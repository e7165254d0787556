"""Signed notes and checkpoints, against the examples of the formats' own page."""

import pytest

from archive.note import Checkpoint, Note, NoteError, Signature, Verifier

# https://c2sp.org/signed-note and golang.org/x/mod/sumdb/note: the same example in both.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SPEECH = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
SIGNED = (
    f"{SPEECH}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqf"
    "qdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_the_example_of_the_format() -> None:
    note, key = Note.parse(SIGNED), Verifier.parse(PETER)
    assert (note.text, str(note), str(key)) == (SPEECH, SIGNED, PETER)
    assert note.by(key).key_id == key.id == bytes.fromhex("c74f20a3")
    assert len(note.by(key).value) == 64


def test_a_checkpoint_reads_what_it_wrote() -> None:
    checkpoint = Checkpoint("call-archive/0a1b", 20852163, bytes(range(32)))
    assert checkpoint.text.split("\n")[:2] == ["call-archive/0a1b", "20852163"]
    assert Checkpoint.parse(checkpoint.text) == checkpoint
    assert Checkpoint.parse(checkpoint.text + "more of it\n") == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n\n", SPEECH, SIGNED[:-1], SIGNED.replace("— ", "- "), SIGNED + "\n"),
        "a\tb\n" + SIGNED,
        *(SPEECH + "\n— Peter\n", SPEECH + "\n— Peter Neumann AAAA\n", SPEECH + "\n— P ????\n"),
    ],
)  # fmt: skip
def test_what_is_no_note(text: str) -> None:
    with pytest.raises(NoteError):
        Note.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "name", "a+b+c", PETER.replace("c74f20a3", "c74f20a4")),
        PETER.replace("Peter", "P e"),
        *("x+00000000+AQ==", PETER.replace("ARpc", "AhpC")),
    ],
)  # fmt: skip
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(NoteError):
        Verifier.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "a\n", "a\n1\n", "a\n01\nAA==\n", "\n1\nAA==\n", "a\n-1\nAA==\n"),
        *("a\n1\nAA==\n", "a\n1\n?\n"),
    ],
)
def test_what_is_no_checkpoint(text: str) -> None:
    with pytest.raises(NoteError):
        Checkpoint.parse(text)


def test_a_note_is_not_taken_for_anothers() -> None:
    other = Verifier("PeterNeumann", 1, bytes(32))
    with pytest.raises(NoteError, match="not signed by PeterNeumann"):
        Note.parse(SIGNED).by(other)
    twice = Note(SPEECH, (Signature("a", b"1234", b"x"), Note.parse(SIGNED).signatures[0]))
    assert Note.parse(str(twice)) == twice
    assert twice.by(Verifier.parse(PETER)).name == "PeterNeumann"
