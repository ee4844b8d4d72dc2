"""Run the service: ``python -m medkg.cli``."""

from medkg.cli.app import main

main()
