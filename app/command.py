"""How a command of the program is declared: its name, what it does, and examples."""

import argparse
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = argparse._SubParsersAction

Run = Callable[[argparse.Namespace], Awaitable[int]]


def command(
    commands: Commands,
    name: str,
    text: str,
    examples: str,
    run: Run,
    as_json: str = "print facts as JSON",
) -> argparse.ArgumentParser:
    """Add a command; `run` gives its exit status. `as_json`: the help of its `--json`."""
    parser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help=as_json)
    return parser


def own_token(file: str) -> str:
    """Whose word it is: the token from its file or from the environment, if there is one."""
    if name := file or os.environ.get("ARCHIVE_TOKEN_FILE", ""):
        return Path(name).read_text("utf-8").strip()
    return os.environ.get("ARCHIVE_TOKEN", "").strip()
