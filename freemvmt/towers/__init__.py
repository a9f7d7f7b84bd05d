"""What a ``TwoTowersModel`` is made of: token ids in, vectors out.

``average``, ``recurrent`` (with ``cells`` and ``packing``) and ``transformer`` are the towers, ``factory`` makes
the one that a config names. ``pretrained`` finds the first token vectors, ``sparse_rows`` gives them a sparse
gradient. ``model_folder`` reads and writes a model's files, ``static_models`` reads those of other libraries.
"""
