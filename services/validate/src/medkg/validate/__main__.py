"""Run the service: ``python -m medkg.validate``."""

from medkg.validate.app import main

main()
