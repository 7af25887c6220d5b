"""A block of measures on the terminal."""

from rich.console import Console
from rich.table import Table

from analysis.memory.blocks import Block


def print_block(console: Console, block: Block) -> None:
    """Print the table of a block, how to read it, and its sentences."""
    table = Table(title=block.title, title_justify="left", pad_edge=False)
    for head in block.heads:
        table.add_column(head, overflow="fold")
    for row in block.rows:
        table.add_row(*row)
    console.print(table)
    for sentence in block.sentences:
        console.print(sentence)
    console.print(block.hint)
