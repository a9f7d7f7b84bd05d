"""Documents in the folder of a bundle: ``store`` opens and changes it, ``view`` is one state of it that is searched."""
