"""The towers of a ``TwoTowersModel``: token ids in, vectors out.

``average``, ``recurrent`` (with ``cells`` and ``packing``) and ``transformer`` are the towers; ``factory`` creates the
one that a config names. ``pretrained`` computes the initial token vectors, ``sparse_rows`` gives them a sparse
gradient, ``unit_vectors`` scales vectors to length 1. ``model_folder`` reads and writes a model's files,
``stored_tensors`` names and checks the tensors in them, ``static_models`` reads models of other libraries.
``numpy_towers`` encodes with the light towers of a model folder; it and ``model_folder`` import no PyTorch.
"""
