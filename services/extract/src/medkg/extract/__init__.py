"""Extracts entities and claims from documents."""
