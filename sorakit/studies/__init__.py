"""A study: the whole answer for a dataset of one's own, with one command.

It writes a sweep of paths and their controls into its folder, runs it, and lets `analysis` make
the tables, the figures and the report of it.
"""
