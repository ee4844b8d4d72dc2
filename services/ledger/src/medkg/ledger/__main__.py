"""Run the service: ``python -m medkg.ledger``."""

from medkg.ledger.app import main

main()
