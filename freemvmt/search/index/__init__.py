"""Search algorithms: each takes queries and documents and returns a ``Ranking`` (``ranking``).

``exact`` and ``dense`` search vectors (PyTorch, FAISS). ``analysis`` splits texts into words, ``lexical`` is BM25 by
tantivy, and ``bm25`` is BM25 over documents in memory. ``fusion`` combines two rankings.
"""
