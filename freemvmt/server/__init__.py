"""The server of a bundle: the API, its description, its metrics and the search page.

Start with ``settings`` (every flag), ``serve`` (one process) and ``supervisor`` (several), then ``api.app`` and
``api.routes``. ``http`` holds what all requests share, ``api`` the routes and their work, ``mcp`` a server for agents.
``follower`` keeps the bundle in step with its folder.
``http`` does not import ``api``, and no module here imports PyTorch.
"""
