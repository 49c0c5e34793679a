"""The command line of `reprocess`: its options, and how its results are shown."""
