"""Fetches the file of a document and stores it under its own hash."""
