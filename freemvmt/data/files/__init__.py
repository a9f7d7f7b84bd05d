"""A folder of files, as people have them, becomes documents.

Read in this order:

- ``content``: what a format's reader returns, and the bounds that all keep.
- ``walk``: finds the files, by their endings, ``.gitignore`` and the user's globs.
- ``text``: bytes become text; plain text and source code.
- ``markdown``, ``rst``, ``html``, ``notebook``, ``docx`` and ``pdf``: one module a format, from bytes
  to ``FileContent``.
- ``report``: counts what was read, and what was passed over.
- ``folder``: joins them. Its table says which ending is read by which module.

Nothing in a file is executed or fetched. A file that cannot be read raises ``UnreadableError`` and is passed over. The
libraries are those of the extra ``files``; each is imported when the first file needs it.
"""
