"""Search for good settings.

``spaces`` has the named sweeps, ``run`` runs one by W&B's agent or by Optuna, ``study`` keeps Optuna's study on disk,
``report`` prints the table of trials and the best command, and draws a plot.
"""
