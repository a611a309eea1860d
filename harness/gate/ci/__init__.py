"""The gate's verdict for CI systems: text, JUnit and GitHub annotations."""
