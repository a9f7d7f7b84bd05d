"""Search for good settings.

``spaces`` has the named sweeps, ``run`` runs one by W&B's agent or by Optuna, ``study`` keeps Optuna's study on disk,
``trial`` trains a trial, ``jobs`` says how many at a time, ``workers`` and ``worker`` are the two ends of the pipes to
a process that trains, ``report`` prints the table of trials and the best command, and draws a plot.
"""
