"""Plugins of kconvert that carry unusual hardware through its pipeline, by its public extension interface alone."""
