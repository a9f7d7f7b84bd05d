"""The routes of the API and the work behind them.

``app`` makes the ASGI application and ``routes`` its routes. ``requests`` and ``responses`` define the bodies.
``service`` does the work, in threads (``thread_pool``) and with several queries together (``batching``). ``openapi``
and ``docs_page`` describe the API, ``static_files`` serves the search page, ``embeddings`` follows OpenAI's API,
``output`` makes JSON.
"""
