"""llama.cpp's server beside gemma-ls: the same model file, the same threads, the same questions."""
