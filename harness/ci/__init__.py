"""A gate's verdict for people, CI servers and GitHub."""
