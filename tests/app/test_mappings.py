"""The mappings of the configuration: ready as they are, changed by a site, and wrong."""

from pathlib import Path

import pytest

from app.config import ConfigError, load
from archive.mapping import FIELDS, REQUIRED

EXAMPLE = Path(__file__).parent.parent.parent / "config.toml"
MAPPINGS = load(EXAMPLE, {}).mappings


@pytest.mark.parametrize("way", MAPPINGS)
def test_every_mapping_of_the_example_names_only_fields(way: str) -> None:
    assert set(REQUIRED) <= set(MAPPINGS[way].fields) <= set(FIELDS)


def test_a_list_may_come_from_the_environment() -> None:
    environ = {"ARCHIVE_MAPPING_KAZOO_QUEUE": "{query.q}, {tag.title}, sales"}
    reading = load(EXAMPLE, environ).mappings["kazoo"]
    assert reading.read({"query": {"q": "x", "call_id": "1", "started_at": "2"}}) == {
        "call_id": "1", "started_at": "2", "queue": "x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "key", "problem"),
    [
        ("call_id = ", "call = ", "call_id", "is missing"),
        ("queue = ", "kueue = ", "kueue", "is no key of this section"),
        ("words = []", "words = 1", "words", "must be a list of texts"),
        ("words = []", 'words = ["in"]', "words", "is wrong: words are written like"),
        ("words = []", "words = [1]", "words", "must be a list of texts"),
        ('["{metadata.agent}"]', '["{form.agent}"]', "agent", "is wrong: a place is one of"),
        ('["{metadata.agent}"]', '["{agent}"]', "agent", "is wrong: a template is written like"),
        ('["{metadata.agent}"]', '[""]', "agent", "is wrong: a template is written like"),
    ],
)
def test_what_is_wrong_is_named_with_file_section_and_key(
    tmp_path: Path, old: str, new: str, key: str, problem: str
) -> None:
    text = EXAMPLE.read_text()
    at = text.index(old, text.index("[mapping.rtpengine]"))
    file = tmp_path / "config.toml"
    file.write_text(text[:at] + new + text[at + len(old) :])
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert str(caught.value).startswith(f"{file}: [mapping.rtpengine] {key}: {problem}")


def test_a_bucket_may_say_no_call_type_but_names_what_lies_beside(tmp_path: Path) -> None:
    assert MAPPINGS["genesys"].fields["call_type"] == ()
    assert MAPPINGS["genesys"].sidecar == "{name}_metadata.json"
    file = tmp_path / "config.toml"
    text = EXAMPLE.read_text()
    file.write_text(text.replace('sidecar = "{name}_metadata.json"', 'sidecar = "beside.json"'))
    with pytest.raises(ConfigError, match=r"\[mapping.genesys\] sidecar: is written like"):
        load(file, {})


def test_variables_of_a_longer_name_are_not_those_of_a_shorter() -> None:
    found = load(EXAMPLE, {"ARCHIVE_MAPPING_FREESWITCH_S3_QUEUE": "{path.q}"}).mappings
    assert found["freeswitch_s3"].read({"path": {"q": "x"}, "tag": {}}) == {"queue": "x"}


@pytest.mark.parametrize("wrong", ["a//b", "{a}/{a}", "x{A}", "*/b"])
def test_a_wrong_path_is_named(wrong: str) -> None:
    with pytest.raises(ConfigError, match="path: is wrong"):
        load(EXAMPLE, {"ARCHIVE_MAPPING_FREESWITCH_PATH": f"{wrong},{{call_id}}x{wrong}"})


def test_an_empty_list_of_what_is_needed_is_refused() -> None:
    with pytest.raises(ConfigError, match="started_at: must not be empty"):
        load(EXAMPLE, {"ARCHIVE_MAPPING_KAZOO_STARTED_AT": ","})


def test_a_mapping_of_no_way_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(EXAMPLE.read_text() + '\n[mapping.freeswich]\ncall_id = ["x"]\n')
    with pytest.raises(ConfigError, match=r"\[mapping.freeswich\]: is no section"):
        load(file, {})
    file.write_text(f"mapping = 1\n{EXAMPLE.read_text().partition('[mapping.')[0]}")
    with pytest.raises(ConfigError, match=r"\[mapping\]: is no section"):
        load(file, {})
