"""One script a figure: reads `paper_figs/data`, writes `paper_figs/out`."""
