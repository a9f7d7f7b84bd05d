"""The process itself: what it prints, which device and how many cores it uses, and how it ends.

``console`` prints, ``exit_codes`` turns errors into one line and a code, ``devices``, ``cores`` and ``threads`` say
what computes, ``memory`` and ``control_groups`` how much the machine or container has left, ``processes`` starts other
Python processes, ``home`` finds the folder for caches, ``optional`` imports a library of an extra or names the extra.
Nothing here imports PyTorch when it is imported.
"""
