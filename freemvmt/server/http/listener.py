"""The socket that a server listens on. The imports are few: the supervisor needs nothing else of a server."""

import socket

from freemvmt.errors import UserError
from freemvmt.server.settings import ServeSettings


def listen(settings: ServeSettings) -> socket.socket:
    """Listen at the address of ``settings``; ``UserError`` when the address cannot be used."""
    host = settings.host.strip("[]")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)  # a second server at this address fails now, not after it has loaded its bundle
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot listen on {settings.host}, port {settings.port} ({reason}); give another --port or --host"
        ) from error
    return listener
