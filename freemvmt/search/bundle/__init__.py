"""A bundle: a model, a corpus and its indexes in one folder, which is moved, served and verified as a whole.

``build`` writes a bundle (``chunks`` encodes its corpus, ``recall`` measures an approximate index), ``load`` opens
it, ``sync`` brings it in step with a folder of files, ``queries`` swaps its query tower. ``milvus`` builds and opens a
bundle whose documents are in Milvus.
"""
