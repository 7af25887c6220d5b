"""`python -m sorakit`: the command line, for launchers that start a module, as torchrun does."""

from sorakit.cli import main

if __name__ == "__main__":
    main()
