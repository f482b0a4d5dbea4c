"""Executors of type `http`: calls of HTTP services."""
