"""Lightning: the module around an encoder, the data module, callbacks. The only room that has it.

==========================  ========================================================================
To train
``module.py``               `EncoderModule`: an encoder and what it is trained for
``datamodule.py``           batches in an order that only the seed and the epoch decide
``trainer.py``              Lightning's Trainer from plain arguments
``devices.py``              where a run computes and how exactly
``distributed.py``          gathering arrays from all processes, agreeing
``processes.py``            those that a launcher started: the first goes ahead, then all work
``optimization.py``         optimiser and learning-rate schedule
``sampling.py``             which items an epoch trains on
``augmentation.py``         of whole batches on their device
``labels.py``               a catalogue's columns as numbers, for objectives that learn from them
``neighbour_positives.py``  whose picture stands in for an item's second view
``checkpointing.py``        whole or absent; a run that can be stopped at any moment
To measure
``features.py``             what a network makes of rows of a catalogue
``query_gallery.py``        who asks and who is searched: nothing may be on both sides
``evaluation.py``           one embedding pass, and everything that is computed from it
``floors.py``               what embeddings that learn nothing reach, found once and kept
``pictures.py``             where a callback's pictures go, and after which epochs
``tensorboard.py``          curves by the run's name, and what TensorBoard opens with
``shards.py``               embeds a catalogue shard by shard
Rooms within
``callbacks/``              when to evaluate, draw and log
==========================  ========================================================================
"""
