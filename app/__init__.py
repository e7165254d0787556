"""Puts it together: configuration, command line, start and stop."""
