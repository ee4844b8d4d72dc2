"""The tables of medkg: ledger, waits and graph in PostgreSQL."""
