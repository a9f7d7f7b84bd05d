"""The towers of a ``TwoTowersModel``: token ids in, vectors out.

``average``, ``recurrent`` (with ``cells`` and ``packing``) and ``transformer`` are the towers; ``factory`` creates the
one that a config names. ``sparse_rows`` gives the token vectors a sparse gradient, ``unit_vectors``
scales vectors to length 1.

``parts`` says what a model is made of. ``initial`` makes the parts from a base model, whose token vectors
``pretrained`` computes; ``stored_parts`` writes them into a model folder and reads them; ``static_models`` reads those
of other libraries. ``model_folder`` names the files of a model folder and checks them. ``numpy_towers`` encodes with
the light towers of a model folder; it and ``model_folder`` import no PyTorch.
"""
