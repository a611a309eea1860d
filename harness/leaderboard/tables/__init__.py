"""Builders of the tables that the terminal, Markdown and LaTeX show alike."""
