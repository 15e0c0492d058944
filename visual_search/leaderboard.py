"""Ranks every finished run of the same data and protocol, floors among them.

``python -m visual_search.leaderboard outputs/``; ``--help`` lists what can be set.
"""

from __future__ import annotations

from visual_search.cli.command_line import run_command
from visual_search.config.schemas import LeaderboardSchema


def main() -> None:
    """Runs the command with ``sys.argv``; a bare path is the folder with the runs."""
    run_command("leaderboard", leaderboard_command)


def leaderboard_command(settings: LeaderboardSchema) -> None:
    """Ranks what lies in the folder, prints it, and writes Markdown, CSV and HTML."""
    from visual_search.reports.rankings import print_leaderboard, rank_runs

    print_leaderboard(rank_runs(settings))


if __name__ == "__main__":
    main()
