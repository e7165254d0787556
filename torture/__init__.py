"""The torture room: each promise of the archive, tried until it would break."""
