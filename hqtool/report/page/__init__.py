"""One HTML page that shows what hqtool found: offline, in a single file."""
