"""`python -m paper_figs`: redraw every figure."""

from paper_figs import fig2_curves, fig3_rank_maps, fig_lasso

for script in (fig2_curves, fig3_rank_maps, fig_lasso):
    print(*script.main(), sep="\n")
