"""Where documents, their metadata and their indexes live.

``base`` says what every store can do; ``memory``, ``local`` (the folder of a bundle) and ``milvus`` do it.
``filters`` says what can be filtered on, ``column`` and ``columns`` decide it, ``arrow`` and ``texts`` read a
bundle's files without pyarrow, ``layout`` names them.
"""
