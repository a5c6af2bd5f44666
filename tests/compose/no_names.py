"""A name server (RFC 1035) that knows no name, and says so at once. On 127.0.0.1:53, until killed."""

import socket

_HEAD = 12  # octets of a message before its questions
_ANSWER = b"\x81\x80"  # a response without an error: the name may be there, and nothing of the kind that was asked for


def main() -> None:
    """Answer every question with nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        while True:
            query, client = server.recvfrom(4096)
            if len(query) > _HEAD:
                server.sendto(query[:2] + _ANSWER + b"\0\1" + bytes(6) + _question(query), client)


def _question(query: bytes) -> bytes:
    """The first question: labels until an empty one, type and class. What comes after it (EDNS) is left out."""
    end = _HEAD
    while end < len(query) and query[end]:
        end += 1 + query[end]
    return query[_HEAD : end + 5]


if __name__ == "__main__":
    main()
