"""What is typed in every editor: a place behind wide and astral characters, where position encodings differ."""

BEFORE = 'def fibonacci(n):\n    if n < 2:\n        return n\n    print("日本 🦀"); return fibonacci(n - 1) +'
AFTER = "\n\nprint(fibonacci(10))\n"
# As far as it is the same on every screen, whatever the cells of the wide characters hold.
LAST_LINE = "return fibonacci(n - 1) +"
