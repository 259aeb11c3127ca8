"""Other programs beside gemma-ls: the same model file, the same threads, the same questions."""
