"""The keys of the issuers: fetched over HTTP or read from files, within limits, beside the request path."""
