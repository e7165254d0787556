"""`python -m app` is the `archive` command."""

from app.cli import main

main()
