"""A bundle over HTTP: the API, its description, its measures, and the search page.

Read ``settings`` (every flag), ``serve`` (one process), ``supervisor`` (several), then ``api.app`` and
``api.routes``. ``http`` is what stands around every request, ``api`` what the routes do; ``http`` does not import
``api``. Nothing here imports PyTorch.
"""
