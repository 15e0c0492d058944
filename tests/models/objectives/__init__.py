"""Tests of the objectives, on networks and pictures of 16 px."""
