"""The socket that a server listens on; light, for a process that only holds it."""

import socket

from freemvmt.errors import UserError
from freemvmt.server.settings import ServeSettings


def listen(settings: ServeSettings) -> socket.socket:
    """The socket that listens at the address of ``settings``; ``UserError`` when it cannot be had."""
    host = settings.host.strip("[]")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)  # a second server of this address is refused now, not when the bundle is loaded
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot listen on {settings.host}, port {settings.port} ({reason}); give another --port or --host"
        ) from error
    return listener
