"""Run the service: ``python -m medkg.gate_router``."""

from medkg.gate_router.app import main

main()
