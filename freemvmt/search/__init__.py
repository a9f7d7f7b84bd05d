"""Vectors become answers.

Start with ``retriever``: it searches documents in memory or in a bundle. ``index`` has the algorithms (exact and
approximate nearest neighbours, BM25, fusion), ``stores`` the places where documents, metadata and indexes live,
``bundle`` the folder format: ``bundle.build`` writes it, ``bundle.load`` opens it. ``encoder`` says what a search
needs of a model, ``hits`` and ``explain`` make answers of numbers.

``retriever``, ``bundle.load``, ``stores.local`` and ``index`` import neither PyTorch nor pyarrow: they serve
without both.
"""
