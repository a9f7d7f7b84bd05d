"""Files that are there whole or not at all, and where they come from.

``files`` writes a file or a folder in one step, ``locks`` lets one writer in at a time, ``manifest`` and
``tensor_files`` tell what is damaged, ``outputs`` checks a place before the work whose result goes there,
``hidden_files`` knows the files of systems and editors. ``hub`` fetches from the Hugging Face Hub, ``model_card``
writes a model's README.
"""
