"""A bundle: a model, a corpus and its indexes in one folder that is moved, served and checked as one.

``build`` writes a bundle (``chunks`` encodes its corpus, ``recall`` measures an approximate index), ``load`` opens
it, ``milvus`` builds and opens one whose documents are in Milvus.
"""
