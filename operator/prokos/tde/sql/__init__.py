"""Executors of type `sql`: statements on databases."""
