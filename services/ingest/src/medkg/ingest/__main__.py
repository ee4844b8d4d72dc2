"""Run the service: ``python -m medkg.ingest``."""

from medkg.ingest.app import main

main()
