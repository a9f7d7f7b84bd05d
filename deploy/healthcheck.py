"""Whether the server answers searches: exit status 0 when it says that it is ready, 1 when it does not.

    python healthcheck.py [URL]

Needs nothing but Python, so that a container without a shell and without curl can ask.
"""

import http.client
import sys
import urllib.error
import urllib.request

READY = "http://127.0.0.1:8000/ready"
PATIENCE = 4.0  # seconds


def main(argv: list[str]) -> int:
    """Ask once; what is wrong goes to stderr, where `docker inspect` shows it."""
    url = argv[0] if argv else READY
    # A proxy of the environment is for other hosts than this one.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=PATIENCE) as answer:
            answer.read()
        return 0
    except urllib.error.HTTPError as error:
        error.close()
        sys.stderr.write(f"{url} answers {error.code}\n")
    except (OSError, http.client.HTTPException, ValueError) as error:
        sys.stderr.write(f"{url} does not answer: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
