"""Projects the lifecycle events into the ledger."""
