"""Executors of type `script`: code in files or in the resource, each run in a process of its own."""
