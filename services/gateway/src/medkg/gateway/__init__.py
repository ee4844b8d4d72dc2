"""HTTP API over jobs, documents, search, graph and dead letters."""
