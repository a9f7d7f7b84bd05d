"""What stands around every request, whatever it asks for.

``protocol`` bounds what uvicorn reads and writes, ``middleware`` gives ids, limits, logs and measures, ``auth``
checks tokens and hosts, ``errors`` is the one shape of a refusal, ``metrics`` what Prometheus reads, ``listener``
the socket.
"""
