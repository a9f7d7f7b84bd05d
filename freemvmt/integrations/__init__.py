"""Adapters for other libraries: LangChain, LlamaIndex, MTEB.

Each module needs the extra of its library, and no other module of the package imports it.
"""
