"""Stores: documents with their metadata and their indexes.

``base`` is the interface of every store; ``memory``, ``local`` (the folder of a bundle) and ``milvus`` implement it.
``filters`` defines filters on metadata, ``column`` and ``columns`` evaluate them. ``texts`` are the documents of a
bundle, ``rows`` the passages of those that are long. ``arrays`` writes and reads their files, ``layout`` names a
bundle's files.
"""
