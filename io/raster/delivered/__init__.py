"""Products as agencies deliver them: folders that hold an image among much else."""
