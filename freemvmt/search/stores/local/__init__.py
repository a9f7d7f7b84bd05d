"""The store in the folder of a bundle: ``store`` opens and changes it, ``view`` is one state that can be searched."""
