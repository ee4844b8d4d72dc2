"""How medkg fetches from servers that it does not trust."""
