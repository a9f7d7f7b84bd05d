"""Our models and bundles as other libraries want them."""
