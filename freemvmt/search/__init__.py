"""Vectors become answers: documents, the stores that hold them, bundles, and the retriever over all."""
