"""Admits jobs and releases what waits: pages, gates, joins, retries."""
