"""One script a figure or table: reads `paper_figs/data`, writes `paper_figs/out`."""
