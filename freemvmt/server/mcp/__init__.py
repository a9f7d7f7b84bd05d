"""A bundle for agents: the Model Context Protocol (MCP), over stdin and stdout or over HTTP.

``serve`` loads a bundle and runs one of the two transports, ``stdio`` or ``http``; ``server`` joins the protocol's
requests to the work of ``tools``. ``messages`` defines what a tool takes and gives, ``cutting`` bounds answers, and
``description`` tells a model that has never seen the bundle what is in it.
"""
