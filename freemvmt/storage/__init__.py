"""Files that are written whole or not at all, their checksums, and the Hugging Face Hub.

``files`` writes a file or a folder in one step, ``locks`` lets one process at a time write, ``manifest`` and
``tensor_files`` detect damage, ``outputs`` checks an output path before the work begins, ``hidden_files`` recognises
the files of systems and editors. ``hub`` fetches from the Hugging Face Hub, ``model_card`` writes a model's README.
"""
