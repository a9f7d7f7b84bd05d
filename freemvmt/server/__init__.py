"""A bundle over HTTP: the API, its description, its measures, and the search page."""
