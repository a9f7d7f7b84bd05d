"""Files become token ids.

Read in this order: ``readers`` (one module a format; they end in ``Judgements`` or in a ``Collection``),
``judgements``, ``examples`` (what a training learns from), ``collection`` (what an evaluation measures on),
``load`` (a name on the command line becomes both), ``streaming`` (the same, a window at a time), ``tokenizer`` and
``ragged`` (texts become ``TokenArray``). ``records``, ``documents`` and ``corpus``: what is indexed. ``values``
says what counts as a text and as an id, for every format. ``writer`` writes training rows.

Nothing here imports PyTorch; ``documents``, ``tokenizer``, ``ragged``, ``values`` and ``lines`` do not import
pyarrow either, because a server without it uses them.
"""
