"""Keeping rows, objects and ledger what they should be, and mending them when they are not."""
