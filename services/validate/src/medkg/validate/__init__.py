"""Checks documents against the thresholds of the topology."""
