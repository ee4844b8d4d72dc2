"""Run the service: ``python -m medkg.index``."""

from medkg.index.app import main

main()
