"""The version of this package, for those within it that may not import the whole."""

VERSION = "0.1.0"
