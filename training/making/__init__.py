"""Make preference pairs: draw and judge them, weigh them, and rewrite prompts into their safe halves."""
