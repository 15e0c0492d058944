"""Tables, pages and leaderboards of runs, written from what runs left; nothing is measured here.

====================  ==============================================================================
``tables.py``         the terminal: a run by category, beside its floors
``run_page.py``       a run's report.html
``shown_items.py``    items with their pictures, beside what was found or nearly the same
``overviews.py``      several evaluations in one table: which embedding wins where
``leaderboard_files.py``  a leaderboard for terminal, page, Markdown and CSV
``rankings.py``       the leaderboard: finished runs gathered, seeds as one, ranked, written
``sweep_summary.py``  how a sweep ended: its leaderboard, the best to choose, counts, what failed
``check_tables.py``   what the check of a catalogue prints
====================  ==============================================================================
"""
