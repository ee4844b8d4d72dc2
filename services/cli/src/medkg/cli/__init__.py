"""The command medkg."""
