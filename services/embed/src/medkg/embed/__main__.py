"""Run the service: ``python -m medkg.embed``."""

from medkg.embed.app import main

main()
