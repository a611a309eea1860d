"""One family a file: an encoder and a search, or other retrievers put together."""
