"""Writes passages to the search index, both stores or neither."""
