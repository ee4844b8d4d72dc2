"""Run the service: ``python -m medkg.mineru``."""

from medkg.mineru.app import main

main()
