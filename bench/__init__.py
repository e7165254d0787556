"""What `make bench` measures: the archive beside the bare store, on one machine, in one run."""
