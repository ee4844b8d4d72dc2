"""Run the service: ``python -m medkg.extract``."""

from medkg.extract.app import main

main()
