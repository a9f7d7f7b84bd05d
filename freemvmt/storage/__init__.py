"""Files that are written whole or not at all, their checksums, and the Hugging Face Hub.

``files`` writes a file or a folder in one step, ``locks`` lets one process at a time write. Damage is detected by
``manifest`` in a folder, and by ``tensor_files`` in a single file or a cache; ``digests`` gives a cache file its name.
``outputs`` checks an output path before the work begins, ``hidden_files`` recognises the files of systems and editors.
``hub`` fetches from the Hugging Face Hub, ``model_card`` writes a model's README.
"""
