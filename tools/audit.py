"""Are there known vulnerabilities in the locked packages? Asked of pip-audit, which asks outside.

    python tools/audit.py PIP-AUDIT FILE...

Status 0: none is known. 1: some are. 2: it could not be asked, and nothing is known.
"""

import json
import subprocess
import sys

COULD_NOT_ASK = 2


def main(pip_audit: str, files: list[str]) -> int:
    """Audit each file; the worst of what was found."""
    return max(_audit(pip_audit, file) for file in files)


def _audit(pip_audit: str, file: str) -> int:
    words = ["--disable-pip", "--require-hashes", "--progress-spinner=off", "--format=json"]
    done = subprocess.run(  # noqa: S603 (the caller names it)
        [pip_audit, *words, "--requirement", file], capture_output=True, text=True, check=False
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        print(f"{file}: COULD NOT ASK, so nothing is known: {lines[-1]}")
        return COULD_NOT_ASK
    unasked = [each["name"] for each in packages if "skip_reason" in each]
    for each in packages:
        for flaw in each.get("vulns", ()):
            mended = ", ".join(flaw["fix_versions"]) or "no release"
            print(f"{file}: {each['name']} {each['version']}: {flaw['id']}, mended in {mended}")
    if unasked:
        print(f"{file}: COULD NOT ASK about {', '.join(unasked)}")
        return COULD_NOT_ASK
    found = sum(len(each.get("vulns", ())) for each in packages)
    print(f"{file}: {len(packages)} packages, {found} known vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
