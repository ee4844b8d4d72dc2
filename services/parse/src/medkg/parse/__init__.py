"""Parses registry records, JATS XML and text into the medkg document model."""
