"""How a command of the program is declared: its name, what it does, and examples."""

import argparse
from collections.abc import Awaitable, Callable
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
) -> argparse.ArgumentParser:
    """Add a command; `run` gives its exit status."""
    parser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser
