"""Evaluation of rankings against judgements.

``metrics`` measures a retriever on a collection (NDCG@10, MRR@10, Recall@100 and @1000), with intervals and paired
tests. ``runs`` reads and writes TREC runs. ``error_analysis`` finds the queries that a model lost against BM25. The
metrics are those of ir-measures.
"""
