"""One module for each format or source.

- ``jsonl``, ``tsv`` and ``parquet``: files of training pairs.
- ``beir`` and ``qrels``: judged collections.
- ``msmarco``: MS MARCO, from the Hub or from its own files.
- ``pydocs``: the docstrings of the installed Python packages.

A reader raises ``UserError`` with the file, the line or row, and the wrong field.
"""
