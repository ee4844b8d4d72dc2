"""The source ``files``: records that lie in folders of the ingest service."""
