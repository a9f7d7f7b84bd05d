"""The handling that all requests share.

``protocol`` limits what uvicorn reads and writes. ``middleware`` adds request ids, limits, logs and metrics.
``auth`` checks tokens and hosts. ``errors`` defines the one form of an error. ``metrics`` holds the numbers for
Prometheus. ``listener`` opens the socket.
"""
