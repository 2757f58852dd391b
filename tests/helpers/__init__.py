"""What several test files use: files and sortings that they write, and ways to run the command line."""
