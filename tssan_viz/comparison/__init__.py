"""Compare classes: similarity within and between them, over subjects, with a test that holds."""
