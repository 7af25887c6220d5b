"""`python -m paper_figs`: redraw every figure and table."""

from paper_figs import (
    fig2_curves,
    fig3_rank_maps,
    fig_frontier,
    fig_lasso,
    fig_memory,
    table1,
    table2,
    table3,
    table4,
    tables,
)

FIGURES = (fig2_curves, fig3_rank_maps, fig_frontier, fig_lasso, fig_memory)
TABLES = (tables, table1, table2, table3, table4)

for script in (*FIGURES, *TABLES):
    print(*script.main(), sep="\n")
