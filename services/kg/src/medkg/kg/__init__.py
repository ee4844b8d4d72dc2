"""Writes entities and claims to the knowledge graph."""
