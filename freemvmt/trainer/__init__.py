"""The parts of ``training.train``.

Read ``training`` first: it is the loop. ``dataset`` reads and tokenises the data, ``samplers`` yields batches,
``objective`` computes the loss of a batch, ``optimizers`` updates the weights, ``validation`` measures the model.
``run`` holds all parts of a training, ``callbacks`` act after steps and epochs, ``signals`` handles Ctrl-C. ``state``
and ``checkpoints`` save and restore a training, ``distributed`` spreads it over processes, ``tracking`` records it,
``history`` plots it, ``result`` saves its model. ``warm_start``, ``teacher`` and ``mining`` are optional; ``report``
compares trained models.
"""
