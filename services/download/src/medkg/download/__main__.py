"""Run the service: ``python -m medkg.download``."""

from medkg.download.app import main

main()
