"""The OpenAPI documents against the code: every route, level, word and type of problem.

`test_openapi_answers` asks the running doors whether they do what the documents say.
"""

import json
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest
import schemathesis

from archive import search
from archive.access import OPERATORS, READERS
from archive.recording import LONGEST, TEXT_FIELDS, CallType, Direction
from storage.audio.formats import Format
from tests.services import ways_in
from web import (
    account,
    checking,
    export_pages,
    finding,
    hearing,
    ledger_pages,
    listing,
    openapi,
    operations,
    overseeing,
    pages,
    problems,
    retrieval,
)
from web.doors import OpenRoute, Route

ROUTES: dict[openapi.Door, list[Route | OpenRoute]] = {
    "ingest": ways_in(),
    "retrieval": retrieval.routes(),
    "operations": operations.routes(),
}
DOCUMENTS: dict[openapi.Door, dict[str, Any]] = {
    door: json.loads(openapi.text(door)) for door in ROUTES
}
FOR_PEOPLE: dict[openapi.Door, list[Route | OpenRoute]] = {
    "ingest": [],
    "retrieval": [
        *finding.routes(),
        *listing.page_routes(),
        *hearing.routes(),
        *export_pages.routes(),
        *pages.routes(),
        *account.page_routes(READERS),
    ],
    "operations": [
        *overseeing.routes(),
        *ledger_pages.routes(),
        *checking.routes(),
        *pages.routes(),
        *account.page_routes(OPERATORS),
    ],
}
"""Pages, which no client reads: the documents name them in a sentence."""

SCHEMAS = {door: schemathesis.openapi.from_dict(document) for door, document in DOCUMENTS.items()}

TYPES = {
    **{problems.BASE + name: status for status, name in problems.STATUS.values()},
    problems.BASE + "method": 405,
    problems.BASE + "unexpected": 500,
}
"""Every type of problem, but `refused`, which has no status of its own."""

every_door = pytest.mark.parametrize("door", ROUTES)


def operations_of(door: openapi.Door) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each method, path and operation of a document."""
    for path, item in DOCUMENTS[door]["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def plain(path: str) -> str:
    """The path of a route without what its parameters have to match."""
    return re.sub(r"\{(\w+):[^{}]*\}", r"{\1}", path)


def walk(value: object, path: str = "#") -> Iterator[tuple[str, Any]]:
    """Each value within a document, with its place."""
    yield path, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            escaped = str(name).replace("~", "~0").replace("/", "~1")
            yield from walk(inner, f"{path}/{escaped}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from walk(inner, f"{path}/{index}")


def resolve(door: openapi.Door, value: dict[str, Any]) -> dict[str, Any]:
    """A value, or what it refers to."""
    if "$ref" not in value:
        return value
    found: Any = DOCUMENTS[door]
    for name in value["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return dict(found)


@every_door
def test_every_route_is_in_the_document_and_nothing_else(door: openapi.Door) -> None:
    documented = {(method, path) for method, path, _ in operations_of(door)}
    answered = {(route.method, plain(route.path)) for route in ROUTES[door]}
    pages = {(route.method, plain(route.path)) for route in FOR_PEOPLE[door]}
    assert documented == answered - pages
    assert pages <= answered
    text = DOCUMENTS[door]["info"]["description"]
    assert all(path in text for method, path in pages if method == "GET" and "static" not in path)


def test_what_doors_say_alike_is_written_once() -> None:
    def parts(document: object) -> dict[str, Any]:
        part = re.compile(r"#/paths/[^/]+|#/components/\w+/\w+")
        return {place: value for place, value in walk(document) if part.fullmatch(place)}

    pairs = combinations([parts(document) for document in DOCUMENTS.values()], 2)
    alike = {k: v for one, other in pairs for k, v in one.items() if other.get(k) == v}
    shared = files("web").joinpath("openapi_shared.json").read_text(encoding="utf-8")
    assert parts(json.loads(shared)) == alike


@every_door
def test_the_document_says_which_levels_may(door: openapi.Door) -> None:
    levels = {
        (route.method, plain(route.path)): getattr(route, "levels", None) for route in ROUTES[door]
    }
    for method, path, operation in operations_of(door):
        needed = [(scheme, *of) for one in operation["security"] for scheme, of in one.items()]
        schemes = ["bearer", "basic"] if door == "ingest" else ["bearer"]
        expected = {(s, level) for s in schemes for level in levels[method, path] or ()}
        assert set(needed) == expected, (method, path)
        assert len(needed) == len(expected)
    assert set(DOCUMENTS[door]["components"]["securitySchemes"]) == set(schemes)


@every_door
def test_the_document_is_openapi_3_1(door: openapi.Door) -> None:
    document = DOCUMENTS[door]
    assert document["openapi"].startswith("3.1.")
    SCHEMAS[door].validate()
    places = {place for place, _ in walk(document)}
    referred = {
        value
        for place, value in walk(document)
        if place.endswith("/$ref")
        if isinstance(value, str)
    }
    assert referred <= places
    parts = {
        f"#/components/{kind}/{name}"
        for kind, named in document["components"].items()
        if kind != "securitySchemes"
        for name in named
    }
    assert parts == referred, "every component is used"
    names = [operation["operationId"] for _, _, operation in operations_of(door)]
    assert len(names) == len(set(names))
    for _, path, operation in operations_of(door):
        parameters = [resolve(door, one) for one in operation.get("parameters", [])]
        in_path = {one["name"] for one in parameters if one["in"] == "path"}
        assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}


@every_door
def test_examples_are_what_their_schemas_ask_for(door: openapi.Door) -> None:
    components = DOCUMENTS[door]["components"]
    seen = 0
    for place, value in walk(DOCUMENTS[door]):
        if not isinstance(value, dict) or not isinstance(value.get("schema"), dict):
            continue
        examples = [value["example"]] if "example" in value else []
        examples += [named["value"] for named in value.get("examples", {}).values()]
        schema = {**value["schema"], "components": components}
        for example in examples:
            jsonschema_rs.validator_for(schema, validate_formats=True).validate(example)
            seen += 1
        assert examples or not place.endswith("problem+json"), place
    assert seen > 5


def test_every_type_of_problem_is_told_of() -> None:
    told = {
        door: document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
        for door, document in DOCUMENTS.items()
    }
    known = {*TYPES, problems.BASE + "refused"}
    assert {name for names in told.values() for name in names} == known
    for door, names in told.items():
        text = DOCUMENTS[door]["info"]["description"]
        assert all(f"`{name}`" in text for name in names)
        assert sum(problems.BASE in line for line in text.splitlines()) == len(names)


def test_the_page_of_the_doors_tells_of_every_type_of_problem() -> None:
    text = (Path(__file__).parents[2] / "docs/api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+|4xx) \|", text, re.MULTILINE)
    assert dict(rows) == {
        **{name.removeprefix(problems.BASE): str(status) for name, status in TYPES.items()},
        "refused": "4xx",
    }


@every_door
def test_each_error_has_its_own_types(door: openapi.Door) -> None:
    told = DOCUMENTS[door]["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
    used = set()
    for method, path, operation in operations_of(door):
        for status, answer in operation["responses"].items():
            content = resolve(door, answer).get("content", {})
            if "application/problem+json" not in content:
                continue
            narrowed = content["application/problem+json"]["schema"]["allOf"][1]
            types = narrowed["properties"]["type"]["enum"]
            assert {TYPES[name] for name in types} == {int(status)}, (method, path)
            used |= set(types)
    of_no_address = {problems.BASE + name for name in ("not-found", "method", "refused")}
    assert used <= set(told) == used | of_no_address


def test_the_words_are_those_of_the_code() -> None:
    for door in ("ingest", "retrieval"):
        schemas = DOCUMENTS[door]["components"]["schemas"]
        assert schemas["CallType"]["enum"] == list(CallType)
        assert schemas["Direction"]["enum"] == list(Direction)
        assert schemas["Text"]["maxLength"] == LONGEST
    fields = {"call_id", "call_type", "started_at", "direction", *TEXT_FIELDS}
    metadata = DOCUMENTS["ingest"]["components"]["schemas"]["Metadata"]
    assert metadata["properties"].keys() == fields
    assert set(names("ingest", "/v1/recordings/{call_id}", "put")) == {
        *fields, "Content-Digest", "Content-MD5",
    }  # fmt: skip
    formats = names("retrieval", "/v1/recordings/{id}/audio", "get")["format"]["schema"]["enum"]
    assert formats == list(get_args(Format))


def test_every_filter_of_a_search_is_told_of() -> None:
    filters = names("retrieval", "/v1/recordings", "get")
    assert filters["limit"]["schema"]["maximum"] == search.MOST
    assert filters["limit"]["schema"]["default"] == search.DEFAULT_LIMIT
    examples = {
        "call_type": "other", "from": "2026-11-24T09:30:00Z", "to": "2026-11-24T09:30:00Z",
        "direction": "inbound", "min_duration": "1", "max_duration": "2", "limit": "10",
        "source": "pbx", **dict.fromkeys(search.SEALED_FILTERS, "x"),
    }  # fmt: skip
    assert {"cursor", *examples} == set(filters)
    search.Query.from_params(examples.items())


def names(door: openapi.Door, path: str, method: str) -> dict[str, dict[str, Any]]:
    """The parameters of one operation by name."""
    parameters = DOCUMENTS[door]["paths"][path][method]["parameters"]
    return {one["name"]: one for one in (resolve(door, one) for one in parameters)}
