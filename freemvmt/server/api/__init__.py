"""The routes and what they do.

``app`` makes the ASGI application, ``routes`` its routes, ``requests`` and ``responses`` their bodies, ``service``
the work behind them (in threads: ``thread_pool``; many queries at once: ``batching``). ``openapi`` and
``docs_page`` describe the API, ``static_files`` serves the search page, ``embeddings`` answers as OpenAI's API
does, ``output`` makes JSON.
"""
