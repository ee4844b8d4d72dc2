"""Run the service: ``python -m medkg.parse``."""

from medkg.parse.app import main

main()
