"""Algorithms: a query and documents in, a ``Ranking`` out.

``ranking`` is what each of them gives. ``exact`` and ``dense`` find near vectors (NumPy or PyTorch, FAISS),
``analysis`` turns texts into words, ``lexical`` is BM25 by tantivy, ``bm25`` the same over documents in memory,
``fusion`` makes one ranking of two.
"""
