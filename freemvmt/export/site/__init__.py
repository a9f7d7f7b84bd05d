"""A bundle as a site without a server: the page searches files in the browser.

``export`` writes the site, ``page`` its HTML and scripts (from ``freemvmt/web``), ``rules`` the tokenizer's and the
analysis's tables for JavaScript, ``postings`` the inverted index.
"""
