"""Loss functions: tensors in, a scalar out.

``triplet`` has the cosine triplet loss and MarginMSE, ``softmax`` InfoNCE and distillation. ``negatives`` chooses the
negatives of a batch, ``similarity`` splits its similarity matrix into blocks. Nothing here depends on files, models or
flags, except the names of ``config.Negatives``.
"""
