"""The pages that one looks at; each is one HTML file that needs nothing beside itself.

====================  =========================================================================
``run_report``        everything that a run left (`RunPage`)
``comparison_page``   runs on the same question, tested query by query (`ComparisonPage`)
``leaderboard_page``  all runs, one table a question, among the floors (`LeaderboardPage`)
====================  =========================================================================

Text comes back; `visual_search.atomic.write_text` writes it. ``html_page`` holds what the pages
share, ``html_tables`` their tables, ``html_figures`` turns figures into inline SVG and pictures,
``html_projection`` makes the points that can be turned, and ``templates`` holds the Jinja
templates, styles and scripts.
"""

from visual_search.views.html_comparison import (
    ComparedQuery,
    ComparedRun,
    ComparisonPage,
    comparison_page,
)
from visual_search.views.html_figures import figure_picture, inline_svg
from visual_search.views.html_leaderboard import (
    LeaderboardGroup,
    LeaderboardPage,
    leaderboard_page,
)
from visual_search.views.html_page import MAX_BYTES
from visual_search.views.html_projection import ProjectionView
from visual_search.views.html_run import DataFinding, ExampleGroup, PicturePair, RunPage, run_report

__all__ = [
    "MAX_BYTES",
    "ComparedQuery",
    "ComparedRun",
    "ComparisonPage",
    "DataFinding",
    "ExampleGroup",
    "LeaderboardGroup",
    "LeaderboardPage",
    "PicturePair",
    "ProjectionView",
    "RunPage",
    "comparison_page",
    "figure_picture",
    "inline_svg",
    "leaderboard_page",
    "run_report",
]
