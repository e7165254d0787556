"""The subject, pure: calls, the year, levels, the lifecycle. Imports the standard library alone."""
