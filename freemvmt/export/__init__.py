"""Export a model or a bundle in a form that other programs read.

``onnx`` (with ``onnx_builder`` and ``onnx_trace``) writes towers as ONNX graphs, ``sentence_transformers`` writes
averages and transformers as modules of that library, ``vectors`` (with ``ray``) writes the vectors of a corpus as
Parquet shards, ``hub`` uploads a model folder to the Hugging Face Hub, and ``site`` writes a bundle as a static site.
"""
