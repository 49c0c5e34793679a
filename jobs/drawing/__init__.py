"""Figures for people: grids and their axes, colours, curves, maps and animations."""
