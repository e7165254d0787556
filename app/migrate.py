"""`archive migrate`: what only the owner of the database's tables may do, for a service whose parts
are not the owner: the schema, the roles' rights, and for a new archive its key ring and the key of
its ledger.
"""

import argparse
import json
import os

from app import config
from app.command import Commands, command
from app.config import Config


def add_parser(commands: Commands) -> None:
    """Add the command."""
    command(
        commands,
        "migrate",
        "Bring the database up to date as its owner, and give the roles their rights.",
        "  archive migrate   # before the parts of a new release start; says which roles to make",
        _migrate,
    )


async def _migrate(arguments: argparse.Namespace) -> int:
    missing = await run(config.load(arguments.config, os.environ))
    if arguments.json:
        print(json.dumps({"missing_roles": missing}))
    elif missing:
        print("up to date; these roles are not there, and the owner may not make them:")
        print("\n".join(missing))
        print("let an administrator run this, with passwords, and then migrate once more")
    else:
        print("up to date; every role has its rights")
    return 0


async def run(loaded: Config) -> list[str]:
    """Do it; returns the statements that make the roles which are not there."""
    from app.embedded import Embedded
    from app.vault import prepare

    data_dir, embedded = loaded.server.data_dir, loaded.database.embedded
    async with Embedded(data_dir, want_postgres=embedded, want_s3=False, join=True) as servers:
        return await prepare(loaded, servers)
