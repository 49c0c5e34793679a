"""Figures for reports: axes of grids, colours, curves, maps and animations."""
