"""From files to token ids.

Read in this order:

- ``readers``: one module a format; each returns ``Judgements`` or a ``Collection``.
- ``judgements``: the rows of any training file in one form.
- ``examples``: the training data.
- ``collection``: the evaluation data.
- ``structure`` and ``unlabelled``: training pairs and queries from text without labels.
- ``load``: turns a name from the command line into both.
- ``streaming``: reads training rows one window at a time.
- ``tokenizer`` and ``ragged``: turn texts into a ``TokenArray``.
- ``records``, ``documents`` and ``corpus``: read the documents to index.
- ``files``: reads the documents of a folder of Markdown, HTML, PDF and other files.
- ``passages``: cuts documents that are longer than the document tower reads.
- ``values``: decides what is a valid text, id or JSON object, for every format.
- ``writer``: writes training rows to a file.

Nothing here imports PyTorch. ``documents``, ``passages``, ``tokenizer``, ``ragged``, ``values`` and ``lines`` do not
import pyarrow either, because a server runs without it.
"""
