"""Export a bundle as a static site: the page searches in the browser, without a server.

``export`` writes the site, ``page`` its HTML and scripts (from ``freemvmt/web``), ``rules`` the tokenizer and the word
analysis as tables for JavaScript, ``postings`` the inverted index, ``texts`` the passages, ``links`` their links to the
original pages.
"""
