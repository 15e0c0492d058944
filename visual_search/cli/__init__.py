"""How a command starts under Hydra, explains what is wrong, and runs a sweep.

====================  ==============================================================================
To start
``command_line.py``   starts a command, and turns what goes wrong into one readable message
``typed_text.py``     what is typed for a key of text is that text
``help.py``           what ``--help`` says: every key, its value, and what it is for
``sources.py``        what a builder takes and says of it, without importing it
``explain.py``        what is wrong with an override or a file of settings, in one line
To sweep
``multirun.py``       every job is recorded, a failed one stops no other, one table ends it all
``sweep_plugins.py``  what may be set of Hydra's own part: launcher, sweeper, a few values
``workers.py``        several jobs at a time: one whose process is killed ends no other
``slurm_jobs.py``     jobs on a SLURM cluster: found finished, gone on with, or lost alone
``cards.py``          which card a worker takes
====================  ==============================================================================
"""
