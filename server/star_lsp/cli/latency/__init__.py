"""Typing replayed through a server: what a developer waits for, and what it costs."""
