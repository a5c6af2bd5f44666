"""A plain HTTP client for the probes."""

import http.client


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """The status and the text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode().strip()
    finally:
        connection.close()
