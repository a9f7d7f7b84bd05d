"""A model leaves in the form that others read."""
