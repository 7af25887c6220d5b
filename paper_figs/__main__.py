"""`python -m paper_figs`: redraw every figure."""

from paper_figs import fig2_curves, fig3_rank_maps

for script in (fig2_curves, fig3_rank_maps):
    print(*script.main(), sep="\n")
