"""Stores: documents with their metadata and their indexes.

``base`` is the interface of every store; ``memory``, ``local`` (the folder of a bundle) and ``milvus`` implement it.
``filters`` defines filters on metadata, ``column`` and ``columns`` evaluate them. ``arrow`` and ``texts`` read a
bundle's files without pyarrow, ``layout`` names these files.
"""
