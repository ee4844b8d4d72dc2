"""Run the service: ``python -m medkg.kg``."""

from medkg.kg.app import main

main()
