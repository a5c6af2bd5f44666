"""Why a request is allowed or denied, in words and as JSON: for `countersign explain` and for a server's admin API."""
