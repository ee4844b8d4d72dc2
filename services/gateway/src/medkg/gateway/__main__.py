"""Run the service: ``python -m medkg.gateway``."""

from medkg.gateway.app import main

main()
