"""What a medkg message, stage, topology and error is; no I/O."""
