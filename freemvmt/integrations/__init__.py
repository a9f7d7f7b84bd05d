"""Our models and bundles as other libraries want them: LangChain, LlamaIndex, MTEB.

Each module needs the extra of its library, and nothing else in the package imports it.
"""
