"""A Board in its forms: terminal, markdown, CSV, LaTeX, JSON, page, picture; and what compare and recommend say."""
