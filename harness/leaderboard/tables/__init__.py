"""Builders of the tables that are written for the terminal, in Markdown and in LaTeX."""
