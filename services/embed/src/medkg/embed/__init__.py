"""Turns passages into dense and sparse vectors."""
