"""Search: rank documents for a query, and return them as hits.

Start with ``retriever``: it searches documents in memory or in a bundle. ``index`` has the algorithms (exact and
approximate nearest neighbours, BM25, fusion), ``stores`` the places where documents, metadata and indexes live,
``bundle`` the folder format: ``bundle.build`` writes it, ``bundle.load`` opens it. ``encoder`` is the interface of a
model that encodes: ``lazy_model`` implements it for the model of a bundle, ``onnx_encoder`` with ONNX graphs.
``methods`` has the three search methods, ``hits`` turns rankings into hits, ``reranker`` scores hits again, ``explain``
splits a score over the words of a text. ``new_documents`` encodes what is added.

``retriever``, ``bundle.load``, ``stores.local`` and ``index`` import neither PyTorch nor pyarrow, so a bundle can be
served without them.
"""
