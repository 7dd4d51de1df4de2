"""Skeleton sequences: what one is, which joints and classes there are, one reader per format."""
