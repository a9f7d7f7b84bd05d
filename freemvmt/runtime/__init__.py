"""The process itself: what it prints, which device and how many cores it uses, and how it ends.

``console`` prints, ``exit_codes`` turns errors into one line and a code, ``devices``, ``cores`` and ``threads`` say
what computes, ``home`` finds the folder for caches, ``optional`` imports a library of an extra or names the extra.
Nothing here imports PyTorch when it is imported.
"""
