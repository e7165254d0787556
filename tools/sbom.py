"""What the program is made of, as CycloneDX: every package of the locked requirements, and of the
lock of what browsers get, with hashes.

    python tools/sbom.py > build/sbom.json

The same locks give the same bytes: no clock and no chance goes in. Only the standard library
is needed.
"""

import base64
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

_PINNED = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)(?:\s*;\s*([^\\]+?))?\s*(?:\\|$)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def bill(
    requirements: str, project: dict[str, Any], bundled: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """The bill of materials of a locked requirements file, and of what is `bundled` besides.

    ValueError for what is not locked.
    """
    components = [*_components(requirements), *bundled]
    main = f"pkg:pypi/{project['name']}@{project['version']}"
    locked = main + requirements + (json.dumps(bundled) if bundled else "")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, locked)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": main,
                "name": project["name"],
                "version": project["version"],
                "licenses": [{"license": {"id": project["license"]}}],
                "purl": main,
            }
        },
        "components": components,
        "dependencies": [{"ref": main, "dependsOn": [each["bom-ref"] for each in components]}],
    }


def _components(requirements: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in requirements.splitlines():
        words = line.strip()
        if pinned := _PINNED.match(words):
            found.append(_component(*pinned.groups()))
        elif (hashed := _HASH.match(words)) and found:
            found[-1]["externalReferences"][0]["hashes"].append(
                {"alg": "SHA-256", "content": hashed[1]}
            )
        elif words and not words.startswith("#"):
            raise ValueError(f"neither a pinned package nor its hash: {words}")
    for each in found:
        if not each["externalReferences"][0]["hashes"]:
            raise ValueError(f"has no hash: {each['name']}")
    return found


def bundled(lock: dict[str, Any]) -> list[dict[str, Any]]:
    """The packages of an npm lock that become part of what browsers get: all but the tools."""
    found = []
    for place, package in lock["packages"].items():
        if not place or package.get("dev"):
            continue
        name, version = place.rpartition("node_modules/")[2], package["version"]
        made = _library(f"pkg:npm/{name.replace('@', '%40')}@{version}", name, version)
        digest = base64.b64decode(package["integrity"].removeprefix("sha512-"), validate=True)
        made["externalReferences"][0]["hashes"] = [{"alg": "SHA-512", "content": digest.hex()}]
        found.append(made)
    return found


def _component(name: str, version: str, marker: str | None) -> dict[str, Any]:
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    made = _library(purl, name, version)
    if marker:
        made["bom-ref"] = f"{purl}#{marker}"
        made["properties"] = [{"name": "environment", "value": marker}]
    return made


def _library(purl: str, name: str, version: str) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        # Each wheel of the release has a hash of its own; any of them may be installed.
        "externalReferences": [{"type": "distribution", "url": purl, "hashes": []}],
    }


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = json.loads((ROOT / "frontend/package-lock.json").read_text())
    made = bill((ROOT / "requirements/run.txt").read_text(), project, bundled(lock))
    sys.stdout.write(json.dumps(made, indent=2) + "\n")
