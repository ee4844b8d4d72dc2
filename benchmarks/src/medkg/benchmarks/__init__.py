"""Measuring the fleet: stages that do nothing, and the programs that time them."""
