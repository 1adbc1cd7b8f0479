"""Layers and parts that several networks stand on; each file is one idea."""
