"""Passages in OpenSearch: words and term weights, and vectors beside them in FAISS or with them in its k-NN fields."""
