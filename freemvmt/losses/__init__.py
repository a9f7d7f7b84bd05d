"""Tensors in, a scalar out.

``triplet`` has the cosine triplet loss and MarginMSE, ``softmax`` InfoNCE and distillation. ``negatives`` picks the
negatives of a batch, ``similarity`` holds the blocks of its similarity matrix. Nothing here knows of files, models
or flags but for the names of ``config.Negatives``.
"""
