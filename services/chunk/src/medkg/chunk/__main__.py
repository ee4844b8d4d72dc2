"""Run the service: ``python -m medkg.chunk``."""

from medkg.chunk.app import main

main()
