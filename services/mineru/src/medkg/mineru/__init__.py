"""Has PDFs read by MinerU, and tells the ledger."""
