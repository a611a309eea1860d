"""Leaderboards, comparisons and recommendations as terminal text, Markdown, LaTeX, CSV and JSON."""
