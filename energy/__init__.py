"""Energy sources, windows and accounting."""
