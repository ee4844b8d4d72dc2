"""Vectors in the blob store: deltas, FAISS segments and manifests that every machine reads; visible by OpenSearch."""
