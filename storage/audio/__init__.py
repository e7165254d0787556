"""Audio: told from its bytes, measured, drawn and turned into formats that play anywhere.

Everything that decodes runs in processes of its own (`worker`), which `pool` starts, feeds and
ends; no other module of the archive knows that they exist.
"""
