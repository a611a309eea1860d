"""A Board in its forms: terminal and markdown."""
