"""Other tools' tasks, models, results and collections here, and ours there."""
