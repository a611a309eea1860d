"""Where test collections come from, one source a file; each `load` gives a Dataset."""
