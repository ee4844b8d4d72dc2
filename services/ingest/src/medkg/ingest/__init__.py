"""Reads sources and turns each record into one document message."""
