"""The admin API: what a serving process knows, over HTTP, read-only. See docs/admin.md."""
