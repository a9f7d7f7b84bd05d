"""One module a format, or a source.

``jsonl``, ``tsv`` and ``parquet`` read files of pairs, ``beir`` and ``qrels`` judged collections, ``msmarco`` the
rows of the Hub and MS MARCO's own files, ``pydocs`` the docstrings of the Python packages that are installed. A
reader raises ``UserError`` with the file, the line (or row) and the field that is wrong.
"""
