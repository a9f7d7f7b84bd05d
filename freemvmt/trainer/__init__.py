"""The parts of ``training.train``.

Read ``training`` first: it is the loop. ``dataset`` reads and tokenises, ``samplers`` gives batches, ``objective``
makes a loss of a batch, ``optimizers`` moves the weights, ``validation`` measures, ``state`` and ``checkpoints``
make a training resumable, ``distributed`` spreads it over processes, ``tracking`` records it, ``history`` draws it,
``result`` is what comes out. ``warm_start``, ``teacher`` and ``mining`` are options; ``report`` compares trained
models.
"""
