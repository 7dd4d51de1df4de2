"""What becomes of an answer: a page, a picture, a table for LaTeX."""
