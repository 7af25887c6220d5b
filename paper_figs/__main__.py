"""`python -m paper_figs`: redraw every figure and table."""

from paper_figs import fig2_curves, fig3_rank_maps, fig_frontier, fig_lasso, fig_memory, tables

for script in (fig2_curves, fig3_rank_maps, fig_frontier, fig_lasso, fig_memory, tables):
    print(*script.main(), sep="\n")
