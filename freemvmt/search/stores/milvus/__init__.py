"""The store in Milvus: ``client`` connects, ``store`` changes a collection, ``view`` searches it."""
